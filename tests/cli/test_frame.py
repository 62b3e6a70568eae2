#!/usr/bin/python3
"""What holds for every command: help, exit statuses, where messages go, JSON, and a program that is killed or cut off."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from bough_test import IO, QEMU, USAGE, main  # noqa: E402
from cli_test import completed, unchanged  # noqa: E402


def commands(home):
    return re.findall(r"^  ([a-z-]+) ", home.bough("help"), re.M)


def claim_version_is_told(home):
    assert re.match(r"^bough \d+\.\d+\.\d+\n$", home.bough("--version"))


def claim_help_lists_all_commands_of_the_design(home):
    wanted = """create list show set remove start stop pause resume save console display screenshot snapshot tree apply revert
        rename-snapshot notes settings delete cancel disk""".split()
    assert set(wanted) <= set(commands(home)), commands(home)


def claim_help_goes_to_standard_output_and_succeeds(home):
    for command in commands(home):
        for form in (["help", command], [command, "--help"]):
            result = home.run(*form)
            assert result.returncode == 0 and result.stderr == "", result
            assert result.stdout.startswith(f"usage: bough {command} "), result


def claim_options_in_a_usage_are_those_in_its_help(home):
    for command in commands(home):
        text = home.bough("help", command)
        if "[OPTION" in text.splitlines()[0] or command == "disk":
            continue
        used = set(re.findall(r"--[a-z-]+", text.splitlines()[0]))
        explained = set(re.findall(r"^  (--[a-z-]+)", text, re.M))
        assert used == explained, (command, used, explained)


def claim_bash_completes_every_command_and_every_option(home):
    assert completed(home, [""]) == sorted([*commands(home), "help"])
    for command in commands(home):
        if command != "disk":
            explained = re.findall(r"^  (--[a-z-]+)", home.bough("help", command), re.M)
            assert completed(home, [command, "v", "--"]) == sorted(explained), command


def claim_bash_completes_operands_wherever_options_stand(home):
    home.create("v", "--nic", "none")
    first, second = (home.bough("snapshot", "v").strip() for _ in range(2))
    (home.dir / "folder").mkdir()
    settings = re.findall(r"[a-z]+", re.search(r"\((.*)\)", home.run("set", "v", "no-such=1").stderr)[1])
    for line, offered in ((["delete", ""], ["v"]), (["delete", "--subtree", "v", ""], [first, second]),
                          (["delete", "v", first[:9].lower()], [first]), (["snapshot", "--name", "x", ""], ["v"]),
                          (["export", "v", "--name", "=", "x", ""], [first, second, "folder"]),
                          (["export", "v", first, "fol"], ["folder"]), (["tree", "v", ""], [""]),
                          (["check", "--repair", "v", "--from", second], [second]), (["help", "ren"], ["rename", "rename-snapshot"]),
                          (["help", "disk", "in"], ["info"]), (["set", "v", ""], [f"{key}=" for key in settings])):
        told = [found for found in completed(home, line) if found not in ("h", "r", "c")]  # this home's own folders
        assert told == sorted(offered), (line, told)


def claim_wrong_command_line_exits_2_and_prints_nothing_on_standard_output(home):
    for line in (["no-such"], ["tree"], ["tree", "a", "b"], ["tree", "a", "--no-such"], ["create"], []):
        result = home.run(*line)
        assert result.returncode == USAGE and result.stdout == "" and result.stderr, (line, result)


def claim_output_that_cannot_be_written_is_an_error(home):
    home.create("v")
    with open("/dev/full", "w", encoding="utf-8") as full:
        for line in (["list"], ["list", "--json"], ["help"], ["tree", "v"], ["show", "v", "--json"]):
            result = subprocess.run([home.program, *line], env=home.env, stdin=subprocess.DEVNULL, stdout=full,
                                    stderr=subprocess.PIPE, text=True, check=False)
            assert result.returncode == IO and "standard output" in result.stderr, (line, result)


def claim_missing_qemu_fails_a_create_and_leaves_nothing(home):
    with unchanged(home):
        result = home.run("create", "v", "--disk", "16M", env=dict(home.env, BOUGH_QEMU="/nonexistent/qemu"))
        assert result.returncode == QEMU and "/nonexistent/qemu" in result.stderr, result


def claim_commands_need_neither_a_home_nor_a_runtime_folder_beforehand(home):
    env = dict(home.env, BOUGH_HOME=str(home.dir / "new" / "home"), BOUGH_RUNTIME=str(home.dir / "new" / "run"))
    assert home.run("list", env=env).stdout == ""
    assert not (home.dir / "new").exists(), "looking makes nothing"
    assert home.run("create", "v", env=env).returncode == 0
    assert json.loads(home.run("list", "--json", env=env).stdout)[0]["name"] == "v"


def claim_home_is_by_the_xdg_rules(home):
    env = {k: v for k, v in home.env.items() if k not in ("BOUGH_HOME", "XDG_DATA_HOME")}
    env["HOME"] = str(home.dir)
    assert home.run("create", "v", env=env).returncode == 0
    assert (home.dir / ".local/share/bough/v").is_dir()
    env["XDG_DATA_HOME"] = str(home.dir / "data")
    assert home.run("create", "w", env=env).returncode == 0
    assert (home.dir / "data/bough/w").is_dir()


def claim_json_is_one_document_whatever_the_names(home):
    name = "a \"b\" \\ <c> & 日本"
    home.create(name, "--notes", "tab\there")
    home.bough("snapshot", name, "--name", "x/y\\")
    for line in (["list"], ["show", name], ["settings", name], ["tree", name]):
        json.loads(home.bough(*line, "--json"))
    assert home.json("list")[0]["name"] == name
    assert home.json("show", name)["notes"] == "tab\there"
    assert home.json("tree", name)["snapshots"][0]["name"] == "x/y\\"


def claim_file_names_that_are_no_utf8_are_refused_not_garbled(home):
    strange = os.fsencode(home.dir) + b"/\xff.vhd"
    with unchanged(home):
        result = subprocess.run([home.program, "create", "v", b"--disk", strange], env=home.env, capture_output=True,
                                stdin=subprocess.DEVNULL, check=False)
        assert result.returncode == 8 and b"UTF-8" in result.stderr and b"\\xff" in result.stderr, result


main(globals())
