"""Messages: one readable line, without control characters and credentials."""

import logging

import pytest

from splatfix.cli import main
from splatfix.messages import readable, without_secrets
from splatfix.process import set_up_logging


def test_control_characters_are_escaped():
    assert readable("a\x1b[2J\nb\r\t\x07\u202e\ud800") == r"a\x1b[2J\nb\r\t\x07\u202e\ud800"
    assert readable("größe 日本 é") == "größe 日本 é"


@pytest.mark.parametrize("text", ["x" * 10_000_000, "\x1b" * 600, "x" * 501])
def test_long_texts_are_cut_in_the_middle(text):
    line = readable(f"the file: {text}; wanted less")
    assert len(line) == 500
    assert line.startswith("the file: ")
    assert line.endswith("; wanted less")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://user:password@bucket/x", "s3://bucket/x"),
        ("s3://user:pass/w+rd=@bucket/x", "s3://bucket/x"),
        ("s3://user:pass@word@bucket: no file, or s3://u:p@b", "s3://bucket: no file, or s3://b"),
        ("https://token@host/x", "https://host/x"),
        ("https://host/x?id=1&token=abc&n=2", "https://host/x?id=1&token=***&n=2"),
        (
            "https://host/x?X-Amz-Credential=a%2Fb&X-Amz-Signature=c",
            "https://host/x?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("az://container/x?sv=1&sig=a%3D", "az://container/x?sv=1&sig=***"),
        ("https://host:8080/path@2", "https://host:8080/path@2"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_credentials_are_hidden(text, shown):
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown
    assert readable(text) == shown


def test_logged_messages_are_readable(capsys):
    set_up_logging()
    logging.getLogger("splatfix").warning("%s: broken", "s3://u:p@b/a\nb\x1b[2J" + "x" * 1000)
    line = capsys.readouterr().err
    assert line.startswith(r"s3://b/a\nb\x1b[2Jxxx")
    assert len(line) <= 501


def test_errors_of_commands_are_one_readable_line(tmp_path, capsys):
    folder = tmp_path / ("no\n\x1b[2J" + "x" * 200)
    assert main(["fit", str(folder), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip()
    assert r"no\n\x1b[2Jxxx" in line
    assert len(line) < 550
    assert "\n" not in line
