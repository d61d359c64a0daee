"""multiprocessing, by fork or spawn: nothing has to be done in the children.

python pool.py fork
python pool.py spawn
"""

import multiprocessing
import sys

import jobs


def main(method: str) -> None:
    jobs.prepare()
    with multiprocessing.get_context(method).Pool(4) as pool:
        processes = set(pool.map(jobs.run, range(40), chunksize=1))
        pool.close()
        pool.join()
    print(f"{len(processes)} processes")


if __name__ == "__main__":
    main(sys.argv[1])
