"""The house of design.md: sections in order, walls that hold, functions that stay small."""

from __future__ import annotations

import ast
import builtins
import functools
import re
import sys

import pytest
from conftest import PROGRAM, ROOT

import neural_audio_tokenizer as nat

TEXT = PROGRAM.read_text(encoding="utf-8")
LINES = TEXT.splitlines()
TREE = ast.parse(TEXT)
BANNER = re.compile(r"^# (\d+) (.+?) -+$")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PURE = (4, 6, 9, 10, 11)  # no file, clock, environment or logger
MAY_PRINT = (2, 15)  # the progress bar, and what --schema and its like print
MAY_CATCH_ALL = {"load_package", "main"}  # a broken binary may raise anything
LAST = 15


@functools.lru_cache(maxsize=1)
def banners():
    """Section number -> (title, first line); the map's twin in the file itself."""
    matches = ((BANNER.match(line), at) for at, line in enumerate(LINES, start=1))
    return {int(match[1]): (match[2], at) for match, at in matches if match}


def section_of(line):
    """Number of the section that a line stands in; 0 is the head."""
    return max([number for number, (_, at) in banners().items() if at <= line], default=0)


def numbers(text):
    """Section numbers in "1 2", "1, 2 (and more)", "1-12", "nothing" or "all above"."""
    found = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", re.sub(r"\(.*?\)", "", text)):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def house_map():
    """The docstring's map: section number -> (title, sections it uses)."""
    rows = re.findall(r"^ +(\d+) (\S.*?) +uses (.+)$", ast.get_docstring(TREE), re.MULTILINE)
    return {int(number): (title, numbers(uses)) for number, title, uses in rows}


def declared(number):
    """Sections that a banner's `Uses:` line names."""
    line = LINES[banners()[number][1]]
    assert line.startswith("# Uses: "), f"section {number} says {line!r}"
    words = line[len("# Uses: ") :].split(". ")[0]
    return set(range(1, number)) if words.startswith("all above") else numbers(words)


# Who uses what


def stored(node):
    """Names that a scope binds itself: parameters, assignments, inner definitions."""
    names, waiting = set(), list(ast.iter_child_nodes(node))
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        names |= {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
    while waiting:
        child = waiting.pop()
        if isinstance(child, ast.Name) and isinstance(child.ctx, (ast.Store, ast.Del)):
            names.add(child.id)
        elif isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            names.add(child.name)
            continue
        elif isinstance(child, ast.ExceptHandler) and child.name:
            names.add(child.name)
        elif isinstance(child, ast.alias):
            names.add((child.asname or child.name).split(".")[0])
        if not isinstance(child, ast.Lambda):
            waiting += ast.iter_child_nodes(child)
    return names


def globals_used(node, local=frozenset()):
    """(name, line) of every name read in a tree that none of its functions binds."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id not in local:
            yield node.id, node.lineno
        return
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        outside = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        outside += getattr(node, "decorator_list", [])
        for part in outside:
            yield from globals_used(part, local)
        local = local | stored(node)
    for child in ast.iter_child_nodes(node):
        yield from globals_used(child, local)


@functools.lru_cache(maxsize=1)
def homes():
    """Name defined at the top level -> its section."""
    found = {}
    for node in TREE.body:
        names = {node.name} if isinstance(node, (*FUNCTIONS, ast.ClassDef)) else set()
        if isinstance(
            node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.With, ast.If, ast.Try)
        ):
            names = {
                part.id
                for part in ast.walk(node)
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
        for name in names:
            found.setdefault(name, section_of(node.lineno))
    return found


@functools.lru_cache(maxsize=1)
def uses():
    """(section, section used, name, line) of every reference across sections."""
    found = set()
    for node in TREE.body:
        here = section_of(node.lineno)
        for name, line in globals_used(node):
            there = homes().get(name, 0)
            if there not in (0, here):
                found.add((here, there, name, line))
    return sorted(found)


def test_the_house_has_its_sections_in_the_order_of_the_map():
    assert house_map(), "the docstring has no map"
    assert list(house_map()) == list(range(1, LAST + 1))
    assert list(banners()) == sorted(banners())
    titles = {number: title for number, (title, _) in banners().items() if number}
    assert titles == {number: title for number, (title, _) in house_map().items()}


def test_banners_are_ruled_to_one_width():
    widths = {len(LINES[at - 1]) for _, at in banners().values()}
    assert len(widths) == 1, widths


def test_the_head_says_what_how_and_where():
    words = ast.get_docstring(TREE)
    assert words.count("python neural_audio_tokenizer.py") >= 3
    assert all(re.search(rf"\b{letter}\b", words) for letter in "TDKQ")


def test_the_map_and_the_banners_agree_on_what_is_used():
    differ = {
        number: (sorted(house_map()[number][1]), sorted(declared(number)))
        for number in banners()
        if number and house_map()[number][1] != declared(number)
    }
    assert not differ, f"section: (map, banner) {differ}"


def test_no_name_is_defined_twice():
    """A second class of one name would silently replace the first in the sections above it."""
    names = [node.name for node in TREE.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))]
    assert not {name for name in names if names.count(name) > 1}


def test_no_section_uses_one_below():
    wrong = [
        f"{name} of {there} in {here}, line {at}"
        for here, there, name, at in uses()
        if there > here
    ]
    assert not wrong, "\n".join(wrong)


def test_every_section_uses_only_what_its_banner_names():
    wrong = [
        f"{here} uses {name} of {there}, line {at}"
        for here, there, name, at in uses()
        if here and there < here and there not in declared(here)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_pure_sections_touch_no_file_clock_environment_or_logger():
    banned = {
        "os", "sys", "time", "tempfile", "shutil", "subprocess", "logging", "LOG", "open", "print",
        "input", "Path", "warn", "Progress", "whole_file",
    }  # fmt: skip
    wrong = [
        f"{section_of(node.lineno)}: {name}, line {at}"
        for node in TREE.body
        if section_of(node.lineno) in PURE
        for name, at in globals_used(node)
        if name in banned
    ]
    assert not wrong, "\n".join(wrong)


def rooms_of(package):
    """Sections whose code names an optional package in a string or import, apart from the table."""
    found = set()
    for node in ast.walk(TREE):
        called = isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "require",
            "available",
        )
        words = [a.value for a in node.args if isinstance(a, ast.Constant)] if called else []
        if isinstance(node, ast.Import):
            words = [alias.name.split(".")[0] for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            words = [(node.module or "").split(".")[0]]
        if package in words:
            found.add(section_of(node.lineno))
    return found


@pytest.mark.parametrize(
    "package, room",
    [("torch", {5}), ("torchaudio", {5}), ("transformers", {5}), ("matplotlib", {12}),
     ("soundfile", {3}), ("soxr", {3, 5})],
)  # fmt: skip
def test_optional_packages_keep_to_their_rooms(package, room):
    assert rooms_of(package) <= room


def test_only_the_standard_library_and_numpy_are_imported_at_the_top():
    top = {
        alias.name.split(".")[0]
        for node in TREE.body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    top |= {node.module.split(".")[0] for node in TREE.body if isinstance(node, ast.ImportFrom)}
    known = getattr(sys, "stdlib_module_names", None)
    if known is None:
        pytest.skip("this Python does not list its modules")
    assert top - set(known) == {"numpy"}


# Small functions


@functools.lru_cache(maxsize=1)
def functions():
    """Every function with its dotted name."""

    def inside(node, path):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
                name = f"{path}{child.name}"
                if isinstance(child, FUNCTIONS):
                    yield name, child
                yield from inside(child, f"{name}.")
            else:
                yield from inside(child, path)

    return list(inside(TREE, ""))


def own_nodes(function):
    """Nodes of a function without those of functions inside it."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)


def body_lines(function):
    """Lines of a body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def complexity(function):
    """Decisions plus one (McCabe 1976), comprehensions and boolean operators counted."""
    total = 1
    for node in own_nodes(function):
        if isinstance(node, (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.Assert)):
            total += 1
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            total += 1 + len(node.ifs)
        elif type(node).__name__ == "match_case":
            total += 1
    return total


def nesting(statements, depth=0):
    """How deep blocks stand in blocks; elif is not deeper than if."""
    deepest = depth
    blocks = (ast.If, ast.For, ast.While, ast.With, ast.Try)
    for node in statements:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        deeper = depth + isinstance(node, blocks)
        for field in ("body", "orelse", "finalbody", "handlers"):
            part = getattr(node, field, [])
            if not isinstance(part, list):
                continue
            elif_only = field == "orelse" and len(part) == 1 and isinstance(part[0], ast.If)
            inner = [h for x in part for h in (x.body if isinstance(x, ast.ExceptHandler) else [x])]
            deepest = max(deepest, nesting(inner, depth if elif_only else deeper))
        if isinstance(node, blocks):
            deepest = max(deepest, deeper)
    return deepest


def parameters(function):
    args = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [arg for arg in args if arg.arg not in ("self", "cls")]


MEASURES = {
    "lines": (body_lines, 60),
    "complexity": (complexity, 12),
    "nesting": (lambda function: nesting(function.body), 4),
    "parameters": (lambda function: len(parameters(function)), 6),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_functions_stay_small(measure):
    value, most = MEASURES[measure]
    wrong = [f"{name}: {value(node)}" for name, node in functions() if value(node) > most]
    assert not wrong, "\n".join(wrong)


def test_most_functions_are_short():
    lengths = sorted(body_lines(node) for _, node in functions())
    assert lengths[len(lengths) // 2] <= 12 and lengths[len(lengths) * 9 // 10] <= 30


def test_lines_are_at_most_100_columns():
    wrong = [f"line {at}: {len(line)}" for at, line in enumerate(LINES, start=1) if len(line) > 100]
    assert not wrong, "\n".join(wrong)


def test_lines_end_clean():
    wrong = [at for at, line in enumerate(LINES, start=1) if line != line.rstrip() or "\t" in line]
    assert not wrong and TEXT.endswith("\n")


# Habits


def test_nothing_broad_is_caught_and_swallowed():
    wrong = []
    for name, function in functions():
        for node in own_nodes(function):
            if isinstance(node, ast.ExceptHandler):
                kinds = getattr(node.type, "elts", [node.type])
                caught = {getattr(kind, "id", "") for kind in kinds}
                broad = node.type is None or caught & {"Exception", "BaseException"}
                passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if broad and not passed_on and name not in MAY_CATCH_ALL:
                    wrong.append(f"{name}, line {node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_there_are_no_global_statements_and_no_evil():
    evil = {"eval", "exec", "compile", "__import__"}
    for node in ast.walk(TREE):
        assert not isinstance(node, ast.Global), node.lineno
        assert not (isinstance(node, ast.Name) and node.id in evil), node.lineno
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pickle":
            assert node.attr == "UnpicklingError", node.lineno  # what numpy raises, to be caught
    assert "allow_pickle=True" not in TEXT and "from pickle" not in TEXT
    assert "trust_remote_code=True" not in TEXT and "shell=True" not in TEXT


def test_only_the_sections_that_may_print_do():
    wrong = [
        f"line {node.lineno}"
        for node in ast.walk(TREE)
        if isinstance(node, ast.Name)
        and node.id == "print"
        and section_of(node.lineno) not in MAY_PRINT
    ]
    assert not wrong, wrong


def is_public(name):
    return not any(part.startswith("_") for part in name.split("."))


def is_nested(name):
    """Whether it is a function in a function."""
    known = dict(functions())
    return any(name.rsplit(".", depth)[0] in known for depth in range(1, name.count(".") + 1))


def inherits(name):
    """Whether a method's words stand at the method of the same name that it overrides."""
    owner, _, method = name.rpartition(".")
    bases = getattr(getattr(nat, owner.split(".")[0], None), "__mro__", ())[1:]
    return any(getattr(base.__dict__.get(method), "__doc__", None) for base in bases)


def test_what_is_public_is_documented():
    wrong = [
        name
        for name, node in functions()
        if is_public(name)
        and not is_nested(name)
        and not ast.get_docstring(node)
        and not inherits(name)
    ]
    classes = [node for node in TREE.body if isinstance(node, ast.ClassDef)]
    wrong += [node.name for node in classes if not ast.get_docstring(node)]
    assert not wrong, "\n".join(wrong)


def test_every_function_is_typed():
    wrong = [
        name
        for name, node in functions()
        if node.returns is None or any(arg.annotation is None for arg in parameters(node))
    ]
    assert not wrong, "\n".join(wrong)


def test_docstrings_begin_with_a_sentence():
    wrong = []
    for name, node in functions():
        words = ast.get_docstring(node)
        if words and not words.split("\n\n")[0].rstrip().endswith((".", "?", ":")):
            wrong.append(name)
    assert not wrong, "\n".join(wrong)


def test_raises_sections_name_what_is_known():
    errors = {n for n, x in vars(nat).items() if isinstance(x, type) and issubclass(x, Exception)}
    for name, node in functions():
        for error in re.findall(r"Raises\n-+\n(\w+)", ast.get_docstring(node) or ""):
            assert (
                error in errors
                or error in dir(builtins)
                or hasattr(__import__("argparse"), error)
            ), name


def test_types_that_hold_arrays_do_not_compare_them():
    for node in TREE.body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                words = ast.unparse(decorator)
                if words.startswith("dataclass"):
                    assert "frozen=True" in words, node.name
                    if "np.ndarray" in ast.unparse(node):
                        assert "eq=False" in words, node.name


def test_no_emoji_and_no_marks_of_versions():
    assert not re.search("[\U0001f300-\U0001faff\u2600-\u27bf]", TEXT)
    names = {name.split(".")[-1] for name, _ in functions()}
    assert not [n for n in names if re.search(r"(?i)enhanced|robust|_v\d|_safe|^safe", n)]


# What stands beside it


def test_the_script_block_equals_the_requirements():
    block = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", TEXT, re.MULTILINE)[1]
    block = "\n".join(line[2:] for line in block.splitlines())
    wanted = re.findall(r'^ +"(.+)",$', block, re.MULTILINE)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert wanted == [line for line in lines if line.strip() and not line.startswith("#")]
    assert re.search(r'^requires-python = ">=3\.\d+"$', block, re.MULTILINE)


def test_the_table_of_packages_covers_the_requirements():
    names = re.findall(r"^[a-z_]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert set(names) - {"numpy"} <= set(nat.PACKAGES)


def readme_commands():
    """Commands in the README that run this program."""
    path = ROOT / "README.md"
    if not path.exists():
        pytest.skip("there is no README.md yet")
    blocks = re.findall(r"```\w*\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if "neural_audio_tokenizer.py" in line]


def test_the_readme_shows_the_program():
    assert len(readme_commands()) >= 2


def test_every_option_in_the_readme_exists():
    parser = nat.make_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    shown = set()
    for command in readme_commands():
        part = command.split("neural_audio_tokenizer.py", 1)[1].split("#")[0].split("|")[0]
        shown |= set(re.findall(r"(?<=\s)(--[a-z][a-z0-9-]*|-[a-zA-Z])(?=[\s=]|$)", part))
    assert shown <= known, shown - known


def test_every_option_named_in_the_docstring_and_messages_exists():
    parser = nat.make_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    head = ast.get_docstring(TREE) + nat.EXAMPLES
    commands = [line for line in head.splitlines() if re.search(r"%\(prog\)s|_tokenizer\.py", line)]
    for command in commands:
        part = re.split(r"%\(prog\)s|_tokenizer\.py", command, maxsplit=1)[1]
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", part.split("|")[0].split("  ")[0]):
            assert option in known, command


def test_files_that_the_readme_names_exist():
    for command in readme_commands():
        for path in re.findall(r"\bexamples/[\w.]+", command):
            assert (ROOT / path).exists(), path
