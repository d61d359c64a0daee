"""`dbconfig explain`: what a kind of problem or a key means."""

from __future__ import annotations

from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FAILED, OK
from dbconfig.errors.catalogue import CATALOGUE
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.settings import key_kinds
from dbconfig.settings.keys import Keys


def run(context: Context) -> int:
    slug = context.arguments.slug
    if slug is None:
        return _all(context)
    slug = slug.strip("[]`")
    entry = CATALOGUE.get(slug)
    if entry is None and slug in Keys.model_fields:
        return _key(context, slug)
    if entry is None:
        near = suggest(slug, [*CATALOGUE, *Keys.model_fields], 0.5)
        context.out.note(f"error: unknown slug or key {quoted(slug)}{f'; {did_you_mean(near)}' if near else ''}")
        context.out.note("`dbconfig explain` lists them all")
        return FAILED
    if context.is_json:
        document = {"slug": slug, "meaning": entry.meaning, "example": entry.example, "fix": entry.advice()}
        context.out.json("explain", document)
        return OK
    context.out.line(("bold", slug))
    context.out.line()
    context.out.line(entry.meaning)
    context.out.line()
    context.out.line("for example:")
    for line in entry.example.splitlines():
        context.out.line(f"    {line}".rstrip())
    context.out.line()
    context.out.line(f"what to do: {entry.advice()}")
    return OK


def _key(context: Context, name: str) -> int:
    """Explain a key of the YAML, as docs/reference.md does."""
    field = Keys.model_fields[name]
    facts = {"type": key_kinds.words(field), "default": key_kinds.shown_default(field)}
    meaning = key_kinds.description(name, field)
    if context.is_json:
        context.out.json("explain", {"key": name, "meaning": meaning, **facts})
        return OK
    context.out.line(("bold", name))
    context.out.line()
    context.out.line(meaning)
    context.out.line()
    context.out.table([*facts.items(), ("variable", f"DBCONFIG_{name.upper()}")])
    return OK


def _all(context: Context) -> int:
    if context.is_json:
        context.out.json("explain", {"slugs": {slug: entry.meaning for slug, entry in CATALOGUE.items()}})
        return OK
    context.out.table([(slug, entry.meaning.partition(". ")[0].rstrip(".")) for slug, entry in CATALOGUE.items()])
    return OK
