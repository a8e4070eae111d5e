"""Files are whole or absent, and as open to others as any file that a program makes."""

import os
import stat
import subprocess
import sys

import pytest

from ferbench.files import claim, exclusive, is_claimed, is_intact, new_folder, seal, write_bytes, write_text


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_and_folders_have_the_mode_that_the_user_asked_for(tmp_path, mask, file, folder):
    code = (
        "from pathlib import Path\nfrom ferbench.files import new_folder, write_text\n"
        "write_text(Path('a'), 'x')\nwith new_folder(Path('b')) as made: (made / 'c').write_text('x')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, preexec_fn=lambda: os.umask(mask))
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b")] == [file, folder]


def test_what_ends_early_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_text(path, "old")

    def refused(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path):
    with new_folder(tmp_path / "b") as made:
        (made / "c").write_text("first")
        assert not (tmp_path / "b").exists()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "b") as made:  # noqa: PT012
        (made / "c").write_text("second")
        raise RuntimeError
    assert (tmp_path / "b" / "c").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_two_that_make_the_same_folder_both_end_well(tmp_path):
    path = tmp_path / "b"
    with new_folder(path) as first:
        (first / "c").write_text("first")
        with new_folder(path) as second:
            (second / "c").write_text("second")
    assert (path / "c").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_one_waits_while_another_process_is_alone_with_a_file(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom ferbench.files import exclusive\n"
        "with exclusive(Path('lock')):\n    print('in', flush=True)\n    sys.stdin.read()\n    Path('done').touch()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"in\n"
    other.stdin.close()
    with exclusive(tmp_path / "lock"):
        assert (tmp_path / "done").exists()
    assert other.wait() == 0
    other.stdout.close()


def test_a_sealed_document_tells_of_any_change(tmp_path):
    document = seal({"a": (1, 2.5), "b": {"c": "é"}})
    assert document["a"] == [1, 2.5]
    assert is_intact(document)
    assert is_intact({"a": 1})  # of before
    assert not is_intact(document | {"a": [1, 2]})
    assert not is_intact(document | {"more": 0})


def test_a_claim_excludes_all_others_and_to_ask_for_it_creates_nothing(tmp_path):
    folder = tmp_path / "run"
    assert not is_claimed(folder)
    assert not folder.exists()
    with claim(folder) as first:
        with claim(folder) as second:
            assert (first, second, is_claimed(folder)) == (True, False, True)
        assert is_claimed(folder)
    assert not is_claimed(folder)
    code = "import os\nfrom pathlib import Path\nfrom ferbench.files import claim\nwith claim(Path('run')) as held:\n    assert held\n    os._exit(0)\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with claim(folder) as third:
        assert third  # the lock has ended with the process
