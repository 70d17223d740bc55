import threading

import pytest
import torch

from rl8.execution.threads import alone, side_by_side


@pytest.fixture(autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_results_come_in_order_from_threads_that_run_at_the_same_time():
    together = threading.Barrier(2, timeout=30)  # breaks unless both tasks wait at once

    def task(name):
        together.wait()
        return name, threading.current_thread().name, torch.get_num_threads()

    (first, here, alone), (second, there, also_alone) = side_by_side([lambda: task("a"), lambda: task("b")])
    assert (first, second) == ("a", "b")
    assert here == threading.current_thread().name != there
    assert alone == also_alone == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_there_may_be_more_or_fewer_tasks_than_threads(threads):
    torch.set_num_threads(threads)
    for count in (0, 1, 2, 5):
        assert side_by_side([lambda number=number: number for number in range(count)]) == list(range(count))


def test_operations_are_not_shared_in_a_block():
    with alone(), alone():
        assert torch.get_num_threads() == 1
    with pytest.raises(ValueError, match="broken"), alone():
        raise ValueError("broken")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_comes_out_after_all_tasks_have_ended(broken):
    ended = []

    def task(number):
        if number == broken:
            raise ValueError("A piece is broken.")
        ended.append(number)

    with pytest.raises(ValueError, match="A piece is broken"):
        side_by_side([lambda: task(0), lambda: task(1)])
    assert ended == [1 - broken]
    assert torch.get_num_threads() == 2


def test_one_task_keeps_the_operations_shared():
    assert side_by_side([torch.get_num_threads]) == [2]
