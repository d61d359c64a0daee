"""`dbconfig explain`: what a kind of problem means, an example, what to do."""

from __future__ import annotations

from difflib import get_close_matches

from dbconfig.cli import FAILED, OK
from dbconfig.cli.context import Context
from dbconfig.errors.catalogue import CATALOGUE


def run(context: Context) -> int:
    slug = context.arguments.slug
    if slug is None:
        return _all(context)
    slug = slug.strip("[]")
    entry = CATALOGUE.get(slug)
    if entry is None:
        near = get_close_matches(slug, CATALOGUE, 1, 0.5)
        context.out.note(f"error: there is no {slug!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        context.out.note("`dbconfig explain` lists them all")
        return FAILED
    if context.is_json:
        document = {"slug": slug, "meaning": entry.meaning, "example": entry.example, "fix": entry.fix}
        context.out.json("explain", document)
        return OK
    context.out.line(context.out.paint("bold", slug))
    context.out.line()
    context.out.line(entry.meaning)
    context.out.line()
    context.out.line("for example:")
    for line in entry.example.splitlines():
        context.out.line(f"    {line}".rstrip())
    context.out.line()
    context.out.line(f"what to do: {entry.fix}")
    return OK


def _all(context: Context) -> int:
    if context.is_json:
        context.out.json("explain", {"slugs": {slug: entry.meaning for slug, entry in CATALOGUE.items()}})
        return OK
    context.out.table([(slug, entry.meaning.partition(". ")[0].rstrip(".")) for slug, entry in CATALOGUE.items()])
    return OK
