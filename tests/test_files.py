"""Files that are whole or not there, directories replaced as one, and locks between processes."""

import errno
import multiprocessing
import os

import pytest

from keras_mosaickd import files

# Nothing here depends on the backend.
pytestmark = pytest.mark.backend("tensorflow")


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_directory_take_the_place_of_older_ones(tmp_path):
    files.write_file(tmp_path / "made" / "a.txt", "ä")
    files.write_file(tmp_path / "made" / "a.txt", b"new")
    assert (tmp_path / "made" / "a.txt").read_bytes() == b"new"
    for name in ("old", "young"):
        with files.replacing(tmp_path / "made" / "d") as new:
            (new / "below").mkdir(parents=True)
            (new / "below" / name).write_text(name)
    assert listing(tmp_path / "made") == ["a.txt", "d"]
    assert listing(tmp_path / "made" / "d" / "below") == ["young"]


def test_what_fails_leaves_the_older_file_and_nothing_else(tmp_path):
    files.write_file(tmp_path / "a.keras", "old")
    with pytest.raises(OSError, match="a.keras"), files.replacing(tmp_path / "a.keras") as new:
        assert new.suffix == ".keras"
        new.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert listing(tmp_path) == ["a.keras"]
    assert (tmp_path / "a.keras").read_text() == "old"


def test_files_are_readable_by_whom_the_umask_lets_read(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_file(tmp_path / "file", "")
        with files.replacing(tmp_path / "folder") as new:
            new.mkdir()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_what_a_killed_writer_left_is_removed_after_a_day(tmp_path):
    old, young, other = (tmp_path / f".{name}" for name in ("a.new-1", "a.new-2", "b.new-1"))
    for path in (old, young, other):
        path.mkdir()
    for path in (old, other):
        os.utime(path, (0, 0))
    files.write_file(tmp_path / "a", "")
    assert listing(tmp_path) == [".a.new-2", ".b.new-1", "a"]


def test_sha256_of_text_of_parts_and_of_a_file(tmp_path):
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256("abc") == files.sha256([b"a", "bc"]) == expected
    assert files.file_sha256(tmp_path / "a") == expected


def _wait(path, seen):
    with files.locked(path, "the other"):
        seen.put(path.with_suffix(".done").exists())


def test_a_lock_is_held_by_one_process(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    seen = context.Queue()
    with files.locked(path) as lock:
        assert lock is not None
        with pytest.raises(BlockingIOError), files.locked(path):
            pass
        process = context.Process(target=_wait, args=(path, seen))
        process.start()
        assert seen.empty()
        path.with_suffix(".done").touch()
    assert seen.get(timeout=60)
    process.join()


def test_without_locks_on_the_file_system_work_goes_on_with_a_warning(tmp_path, monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="no locks"), files.locked(tmp_path / "lock") as lock:
        assert lock is None
