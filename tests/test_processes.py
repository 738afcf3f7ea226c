"""Several processes that talk over loopback against one."""

import numpy as np
import pytest

from tests.processes import finish, module, start, start_group

pytestmark = pytest.mark.slow


def trained(tmp_path, count, *names):
    """What each of `count` processes ends with; of one that has no launcher for 0."""
    program = "tests.processes_program"
    paths = [tmp_path / f"{count}_{number}.npz" for number in range(max(count, 1))]
    if count:
        commands = [module(program, path, "processes", *names) for path in paths]
        processes = start_group(count, commands)
    else:
        processes = [start(module(program, paths[0], "none", *names))]
    for process in processes:
        finish(process)
    results = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            results.append({name: file[name] for name in file.files})
    assert [int(result.pop("processes")) for result in results] == [max(count, 1)] * max(count, 1)
    return results


def check_equal(one, several):
    for name, expected in one.items():
        for result in several:
            np.testing.assert_allclose(result[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
            # All of a group hold the very same.
            np.testing.assert_array_equal(result[name], several[0][name], err_msg=name)


def test_two_processes_give_what_one_gives(tmp_path):
    names = ("mosaickd", "practical", "kd", "fitnet", "supervised", "teacher")
    (one,) = trained(tmp_path, 0, *names)
    check_equal(one, trained(tmp_path, 2, *names))


@pytest.mark.long
def test_four_processes_give_what_one_gives(tmp_path):
    names = ("mosaickd", "kd", "fitnet", "teacher")
    (one,) = trained(tmp_path, 0, *names)
    check_equal(one, trained(tmp_path, 4, *names))
