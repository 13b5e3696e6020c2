import asyncio

import pytest

from shared.llm.budget import Budget, BudgetSpent, Usage


def run(budget, requests):
    """Reserve and settle requests, pairs of the most and the used; return how many were sent."""

    async def send():
        for sent, (most, used) in enumerate(requests):
            try:
                await budget.reserve(most)
            except BudgetSpent:
                return sent
            await budget.settle(most, used)
        return len(requests)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"requests": 3}, 3),
        ({"tokens": 350}, 2),  # after two, 200 are used, and the next could take 160
        ({"tokens": 360}, 3),
        ({"money": 0.00035, "price_input": 1, "price_output": 1}, 2),
        ({"money": 0.0005, "price_output": 5}, 5),
        ({}, 9),
    ],
)
def test_no_limit_is_passed(limits, expected):
    budget = Budget(**limits)
    requests = [(Usage(1, 140, 20), Usage(1, 80, 20))] * 9
    assert run(budget, requests) == expected
    assert budget.spent == (expected < 9)
    assert budget.used == Usage(expected, 80 * expected, 20 * expected)


def test_what_runs_is_set_aside_and_leaves_room_again():
    budget = Budget(tokens=250)
    most, used = Usage(1, 100, 50), Usage(1, 40, 10)
    events = []

    async def first():
        await budget.reserve(most)
        events.append("first sent")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        events.append("first answered")
        await budget.settle(most, used)

    async def second():
        await asyncio.sleep(0)
        await budget.reserve(most)
        events.append("second sent")
        await budget.settle(most, used)

    async def both():
        await asyncio.gather(first(), second())

    asyncio.run(both())
    assert events == ["first sent", "first answered", "second sent"]
    assert not budget.spent


def test_once_it_is_spent_those_that_wait_end_too():
    budget = Budget(tokens=100)
    most = Usage(1, 90, 10)

    async def one():
        try:
            await budget.reserve(most)
        except BudgetSpent:
            return False
        await asyncio.sleep(0)
        await budget.settle(most, Usage(1, 80, 10))
        return True

    async def all_of_them():
        return await asyncio.gather(*(one() for _ in range(4)))

    assert asyncio.run(all_of_them()) == [True, False, False, False]
    assert budget.spent
