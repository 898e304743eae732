"""The command line: thin, quick to ask for help, one line for what the user can mend."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import emhet_dask
from emhet_dask.cli.main import _build, main
from emhet_dask.errors import InputError
from emhet_dask.options import COMMANDS


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(words):
    result = CliRunner().invoke(_build(), [*words, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    for _, (meta, _) in zip(range(3), COMMANDS[words][0].options().values(), strict=False):
        if not meta.argument:
            assert meta.help.split()[0] in result.output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_target_exists_and_has_the_options_of_its_command(words):
    import importlib
    import inspect

    options, target = COMMANDS[words]
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert list(inspect.signature(function).parameters) == list(options.options())
    assert getattr(emhet_dask, "_".join(words)) is function  # the same from Python


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from emhet_dask.cli import main\n"
        "try: main(['landscape', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'dask', 'distributed', 'zarr', 'matplotlib', 'pandas'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    asked = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert asked.returncode == 0


def test_the_callee_gets_what_was_typed(monkeypatch, capsys):
    called = {}

    class Report:
        def describe(self):
            return "done"

    def landscape(**given):
        called.update(given)
        return Report()

    import emhet_dask.workflows.landscape as module

    monkeypatch.setattr(module, "landscape", landscape)
    main(["landscape", "e.zarr", "-o", "out", "--n-clusters", "5", "--no-normalize"])
    assert called["ensemble"] == "e.zarr"
    assert called["output"] == "out"
    assert called["n_clusters"] == "5"
    assert called["normalize"] is False
    assert called["weights"] is True
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["landscape", "e.zarr"], "emhet landscape: Missing option '--output'"),
        (["landscape", "e.zarr", "-o", "o", "--n-clusters", "0"], "emhet: --n-clusters: got '0'"),
        (["nothing"], "No such command 'nothing'"),
        (["info", "absent.zarr"], "emhet: absent.zarr: no such store"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(arguments, message, capsys):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_bug_shows_its_traceback(monkeypatch):
    import emhet_dask.workflows.info as module

    def info(**_):
        raise RuntimeError("bug")

    monkeypatch.setattr(module, "info", info)
    with pytest.raises(RuntimeError, match="bug"):
        main(["info", "e.zarr"])


def test_interrupt_says_that_the_same_command_continues(monkeypatch, capsys):
    import emhet_dask.workflows.info as module

    def info(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "info", info)
    assert run("info", "e.zarr") == 130
    assert "the same command again continues" in capsys.readouterr().err


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)
