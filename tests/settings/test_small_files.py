"""Small files: what is read, and who else may write."""

import os

import pytest

from dbconfig.settings import small_files

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert small_files.read(path, 10) == b"x" * 10
    with pytest.raises(small_files.Unreadable, match="it is larger than 0 KiB") as caught:
        small_files.read(path, 9)
    assert caught.value.too_large


def test_a_file_that_does_not_say_its_size_is_limited_too():
    if not os.path.exists("/dev/zero") or not os.path.exists("/proc/self/maps"):
        pytest.skip("needs /proc")
    assert small_files.read(__import__("pathlib").Path("/proc/self/status"))
    with pytest.raises(small_files.Unreadable, match="not a regular file"):
        small_files.read(__import__("pathlib").Path("/dev/zero"))
    with pytest.raises(small_files.Unreadable, match="larger"):
        small_files.read(__import__("pathlib").Path("/proc/self/maps"), 16)


@posix
@pytest.mark.parametrize(
    ("mode", "gid", "writable"),
    [(0o644, 0, False), (0o646, 0, True), (0o664, 0, False), (0o664, 4242, True), (0o600, 4242, False)],
)
def test_a_file_that_others_may_write_is_noticed(tmp_path, mode, gid, writable):
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(mode)
    if os.getuid() != 0 and gid:
        pytest.skip("needs root")
    os.chown(path, -1, gid if os.getuid() == 0 else -1)
    assert small_files.writable_by_others(path) is writable


@posix
def test_a_folder_in_which_others_may_put_another_file_is_noticed(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "a").write_text("x")
    folder.chmod(0o777)
    assert small_files.writable_by_others(folder / "a")
    folder.chmod(0o1777)  # as /tmp is: others cannot rename it there
    assert not small_files.writable_by_others(folder / "a")
