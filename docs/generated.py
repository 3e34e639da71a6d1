"""Pages of the reference, from the code itself: Markdown of what is there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

import vectorizer
from vectorizer import cli, client, embedders, errors, events, pgvectorizer
from vectorizer.cli import app
from vectorizer.config import (
    DatabaseConfig,
    LogConfig,
    MetricsConfig,
    VectorizerConfig,
)
from vectorizer.definition import Options
from vectorizer.metrics import Metrics
from vectorizer.worker import WorkerOptions

_MODULE = r"\b(?:vectorizer|collections\.abc|typing|typing_extensions)(?:\.\w+)*\."
_WIDTH = 80
_SQL = Path(__file__).parent.parent / "sql"


def commands() -> str:
    """List every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    return "\n".join(_command(name, one) for name, one in group.commands.items())


def configuration() -> str:
    """List every key of vectorizer.toml, by section."""
    sections: list[tuple[str, Any, str]] = [
        ("database", DatabaseConfig, DatabaseConfig.__doc__ or ""),
        ("worker", WorkerOptions, WorkerOptions.__doc__ or ""),
        ("log", LogConfig, LogConfig.__doc__ or ""),
        ("metrics", MetricsConfig, MetricsConfig.__doc__ or ""),
        (
            "vectorizers.NAME",
            VectorizerConfig,
            f"{VectorizerConfig.__doc__}\n{Options.__doc__}",
        ),
    ]
    return "\n".join(_section(*one) for one in sections)


def metrics() -> str:
    """List every metric with its type and labels."""
    held = Metrics()
    lines = ["| metric | type | labels | what it says |", "| --- | --- | --- | --- |"]
    names = vars(held.registry)["_collector_to_names"]
    labels = {
        name: getattr(collector, "_labelnames", ("vectorizer", "generation"))
        for collector, known in names.items()
        for name in known
    }
    for family in held.registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        named = ", ".join(
            f"`{one}`" for one in labels.get(family.name, ("vectorizer", "generation"))
        )
        lines.append(
            f"| `{family.name}{suffix}` | {family.type} | {named} | {family.documentation} |"
        )
    return "\n".join(lines)


def functions() -> str:
    """List the SQL functions that carry a comment: those for users."""
    lines = []
    for path in sorted((_SQL / "functions").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        for kind, name, comment in re.findall(
            r"^comment on (function|procedure) \{schema\}\.(\w+)\([^)]*\) is\s+'((?:[^']|'')*)';",
            text,
            re.MULTILINE,
        ):
            signature = _signature(text, kind, name)
            lines.append(f"### vectorizer.{name}\n\n```\n{signature}\n```\n\n{comment}\n")
    return "\n".join(sorted(lines))


def tables() -> str:
    """List the tables of the schema that carry a comment."""
    lines = ["| table | what it holds |", "| --- | --- |"]
    for path in sorted((_SQL / "migrations").glob("*.sql")):
        for name, comment in re.findall(
            r"^comment on table \{schema\}\.(\w+) is '((?:[^']|'')*)';",
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        ):
            lines.append(f"| `vectorizer.{name}` | {comment.replace(chr(39) * 2, chr(39))} |")
    return "\n".join(lines)


def exceptions() -> str:
    """Return the tree of errors, as it stands in the module."""
    return _prose(inspect.getdoc(errors) or "")


def exit_codes() -> str:
    """Return what the command line says of its exit codes."""
    return (inspect.getdoc(cli) or "").partition("\n\n")[2]


def library() -> str:
    """List the public classes with their docstrings."""
    parts: list[tuple[str, Sequence[Any]]] = [
        ("vectorizer", [getattr(vectorizer, name) for name in _classes(vectorizer)]),
        ("vectorizer.embedders", [getattr(embedders, name) for name in _classes(embedders)]),
        ("vectorizer.pgvectorizer", [pgvectorizer.Vectorize]),
        ("vectorizer.client", [getattr(client, name) for name in _classes(client)]),
        ("vectorizer.events", [one for one in vars(events).values() if _is_event(one)]),
        ("vectorizer.metrics", [Metrics]),
    ]
    seen: set[Any] = set()
    lines: list[str] = []
    for module, members in parts:
        new = [one for one in members if one not in seen and hasattr(one, "__name__")]
        seen.update(new)
        lines.append(f"## {module}\n")
        lines += [_member(one) for one in new]
    return "\n".join(lines)


def _is_event(one: Any) -> bool:
    return inspect.isclass(one) and one.__module__ == events.__name__ and one.__name__[0] != "_"


def _classes(module: Any) -> list[str]:
    names = [name for name in module.__all__ if name[0].isupper() and not name.isupper()]
    wanted = [name for name in names if name not in ("AsyncVectorizer", "Async")]
    functions = [name for name in module.__all__ if inspect.isfunction(getattr(module, name))]
    return [*wanted, *functions]


def _member(member: Any) -> str:
    name = "Sync" if member is client.Sync else member.__name__
    if not inspect.isclass(member):
        return f"### {name}\n\n```\n{name}{_call(member)}\n```\n\n{_doc(member)}\n"
    call = "" if name in ("Embedder", "Observer") else f"```\n{name}{_call(member)}\n```\n\n"
    lines = [f"### {name}\n\n{call}{_doc(member)}\n"]
    for method, value in inspect.getmembers(member):
        if method.startswith("_") or method not in _own(member):
            continue
        if isinstance(value, property):
            lines.append(f"**`{method}`**\n\n{_doc(value)}\n")
        elif callable(value) and inspect.getdoc(value):
            lines.append(f"```\n{method}{_call(value)}\n```\n\n{_doc(value)}\n")
    return "\n".join(lines)


def _own(kind: type) -> set[str]:
    ours = [base for base in kind.__mro__ if base.__module__.startswith("vectorizer")]
    return {name for base in ours for name in vars(base)}


def _call(member: Any) -> str:
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):
        return "(…)"
    parameters = [one for name, one in signature.parameters.items() if name != "self"]
    signature = signature.replace(parameters=parameters)
    if inspect.isclass(member):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    text = re.sub(_MODULE, "", str(signature)).replace("<factory>", "…")
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations are not evaluated
    return text if len(text) <= _WIDTH else _one_a_line(text)


def _one_a_line(text: str) -> str:
    """Break a signature at the commas that stand in no brackets."""
    inside, _, result = text[1:].rpartition(")")
    parts = re.split(r", (?![^\[\]]*\])", inside)
    return "(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def _doc(member: Any) -> str:
    paragraphs = (inspect.getdoc(member) or "").split("\n\n")
    return _prose("\n\n".join(_listed(paragraph) for paragraph in paragraphs))


def _listed(paragraph: str) -> str:
    """Make a list of a paragraph whose lines begin with names and colons."""
    begins = [line for line in paragraph.splitlines() if not line.startswith(" ")]
    if not all(re.match(r"[\w*]+(, [\w*]+)*: ", line) for line in begins):
        return paragraph
    return re.sub(r"^(?=\S)", "- ", paragraph, flags=re.MULTILINE)


def _prose(text: str) -> str:
    # "::" announces code, which is indented and thus code in Markdown, too.
    return (
        re.sub(r"^::\n", "", text, flags=re.MULTILINE).replace("::\n", ":\n").replace("<", "&lt;")
    )


def _command(name: str, command: Any, path: str = "vectorizer") -> str:
    path = f"{path} {name}"
    level = "#" * (1 + path.count(" "))
    text, _, example = (command.help or "").partition("Example: ")
    lines = [f"{level} {path}\n", text.strip() + "\n"]
    if example:
        lines.append(f"```\n{example.strip()}\n```\n")
    described = list(_parameters(command.params))
    if described:
        lines += ["| argument or option | what it says |", "| --- | --- |", *described, ""]
    lines += [_command(one, inner, path) for one, inner in getattr(command, "commands", {}).items()]
    return "\n".join(lines)


def _parameters(parameters: Iterable[Any]) -> Iterator[str]:
    for one in parameters:
        if one.param_type_name == "argument":
            names = f"`{(one.metavar or one.name).strip('[]{}.').upper()}`"
        else:
            names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
        text = (getattr(one, "help", None) or "").replace("|", "\\|")
        shown = getattr(one, "show_default", None)
        default = shown if isinstance(shown, str) else one.default if shown else None
        if isinstance(default, (str, int, float)) and not isinstance(default, bool):
            text += f" Default: `{default}`."
        yield f"| {names} | {text} |"


def _section(name: str, kind: Any, doc: str) -> str:
    described = _described(doc, [key for key, _, _ in _keys(kind)])
    lines = [
        f"## [{name}]\n",
        "| key | what it says | type | default |",
        "| --- | --- | --- | --- |",
    ]
    for key, annotation, default in _keys(kind):
        if key in ("model", "dimensions"):
            continue  # they follow from the embedder
        text = described.get(key, "").replace("|", "\\|")
        lines.append(f"| `{key}` | {text} | {_type(annotation)} | {default} |")
    return "\n".join([*lines, ""])


def _keys(kind: Any) -> list[tuple[str, Any, str]]:
    if is_dataclass(kind):
        return [(one.name, one.type, _shown(_initial(one))) for one in fields(kind)]
    return [
        (
            one.alias or name,
            one.annotation,
            "required" if one.is_required() else _shown(one.get_default(call_default_factory=True)),
        )
        for name, one in kind.model_fields.items()
    ]


def _initial(one: Any) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _shown(value: Any) -> str:
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Mapping):
        return "`{ " + ", ".join(f'{key} = "{inner}"' for key, inner in value.items()) + " }`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


_TYPES = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "timedelta": "length of time, such as `30d`",
    "_Count": "number",
    "_Positive": "number",
    "_Joined": "table",
    "NoneType": "",
}


def _type(annotation: Any) -> str:
    if isinstance(annotation, str):
        name = re.sub(r"Annotated\[(\w+),.*|\s*\|\s*None", r"\1", annotation)
        return _TYPES.get(name, "table" if "Mapping" in name else name)
    if get_origin(annotation) is None:
        return _TYPES.get(getattr(annotation, "__name__", ""), "text")
    if get_origin(annotation) is tuple:
        return "two numbers" if get_args(annotation) == (int, int) else "list of names"
    if get_origin(annotation) is dict:
        return "table"
    values = get_args(annotation)
    if all(isinstance(value, str) for value in values):
        return " or ".join(f"`{value}`" for value in values)
    return next(filter(None, (_type(value) for value in values)), "")


def _described(doc: str, names: Sequence[str]) -> dict[str, str]:
    """Return what a docstring says of each name: `name: text; other: text.`."""
    text = " ".join(inspect.cleandoc(doc).split())
    pieces = re.split(rf"(?<![\w`])({'|'.join(names)}(?:, (?:{'|'.join(names)}))*): ", text)
    found: dict[str, str] = {}
    for keys, said in zip(pieces[1::2], pieces[2::2], strict=True):
        for key in keys.split(", "):
            found.setdefault(key, said.strip(" ;"))
    return found


def _signature(text: str, kind: str, name: str) -> str:
    made = rf"create or replace {kind} \{{schema\}}\.{name}"
    match = re.search(
        rf"{made}\((.*?)\)(?:\s+returns ([\w ]+?))?(?=\s+language|\n)", text, re.DOTALL
    )
    if match is None:
        raise ValueError(f"{kind} {name} is commented and not made")
    call = "call" if kind == "procedure" else "select"
    returns = f" -> {match[2]}" if match[2] else ""
    return f"{call} vectorizer.{name}({' '.join(match[1].split())}){returns}"
