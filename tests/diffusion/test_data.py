"""The K-repeat sampler: a pure function of (seed, step), the same for any number of processes."""

from collections import Counter

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from align.errors import AlignError
from diffusion.data import process_rows, step_rows

counts = {"per_step": st.integers(1, 12), "extra": st.integers(0, 30), "seed": st.integers(0, 2**31)}


@given(group_size=st.integers(1, 5), step=st.integers(0, 200), world=st.integers(1, 5), **counts)
def test_every_prompt_is_drawn_exactly_group_size_times_over_all_processes(
    per_step, extra, group_size, seed, step, world
):
    num_prompts, total = per_step + extra, per_step * group_size
    assume(total >= world)
    rows = step_rows(num_prompts, per_step, group_size, seed, step)
    parts = [process_rows(total, 1, rank, world) for rank in range(world)]
    drawn = torch.cat([rows.prompt_index[part] for part in parts]).tolist()
    assert len(set(drawn)) == per_step
    assert set(Counter(drawn).values()) == {group_size}
    assert set(drawn) <= set(range(num_prompts))


@given(step=st.integers(0, 100), **counts)
def test_group_ids_are_integers_that_name_step_and_prompt(per_step, extra, seed, step):
    num_prompts = per_step + extra
    rows, other = (step_rows(num_prompts, per_step, 2, seed, s) for s in (step, step + 1))
    assert rows.group_ids.dtype == torch.int64
    assert torch.equal(rows.group_ids, step * num_prompts + rows.prompt_index)
    assert not set(rows.group_ids.tolist()) & set(other.group_ids.tolist())


def test_the_sampler_is_pure_and_follows_seed_and_step():
    """Asking again, or in another order, changes nothing; another seed or step does."""
    first = {step: step_rows(50, 8, 4, 0, step).prompt_index for step in range(10)}
    again = {step: step_rows(50, 8, 4, 0, step).prompt_index for step in reversed(range(10))}
    assert all(torch.equal(first[step], again[step]) for step in first)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], step_rows(50, 8, 4, 1, 0).prompt_index)


def test_the_rows_of_a_group_are_spread_out():
    """Permuted, not grouped: 8 prompts x 8 in blocks would have 7 changes between neighbours."""
    prompts = step_rows(50, 8, 8, 0, 0).prompt_index
    assert (prompts.diff() != 0).sum() > 30


@given(**counts)
def test_every_prompt_is_used_once_before_any_is_used_again(per_step, extra, seed):
    """Over any number of steps the uses of two prompts differ by at most one,
    or by two inside a step that spans two epochs.
    """
    num_prompts, uses = per_step + extra, Counter()
    for step in range(3 * num_prompts // per_step + 2):
        drawn = step_rows(num_prompts, per_step, 1, seed, step).prompt_index.tolist()
        assert len(set(drawn)) == per_step, "a step that spans two epochs repeats a prompt"
        uses.update(drawn)
        epoch, into = divmod((step + 1) * per_step, num_prompts)
        assert all(uses[p] in (epoch, epoch + 1) for p in range(num_prompts))
        assert sum(uses[p] == epoch + 1 for p in range(num_prompts)) == into


def test_epochs_are_shuffled_anew():
    """4 steps of 5 make an epoch of 20: the second epoch has another order."""
    epochs = [torch.cat([step_rows(20, 5, 1, 0, 4 * e + s).prompt_index for s in range(4)]) for e in range(2)]
    assert all(sorted(e.tolist()) == list(range(20)) for e in epochs)
    assert not torch.equal(*epochs)


def test_all_prompts_in_every_step():
    for step in range(5):
        assert sorted(step_rows(6, 6, 1, 3, step).prompt_index.tolist()) == list(range(6))


def test_a_late_step_of_a_large_data_set_costs_no_history():
    """Step 10^6 shuffles at most two epochs; a history from epoch 0 would take hours."""
    assert len(step_rows(20_000, 72, 24, 0, 10**6).prompt_index) == 1728


def test_a_data_set_that_is_too_small_is_an_error_with_the_largest_possible_value():
    with pytest.raises(AlignError) as caught:
        step_rows(7, 8, 4, 0, 0)
    assert "expected 8 distinct prompts a step (rollout.prompts_per_step), found 7" in str(caught.value)
    assert "at most 7" in str(caught.value)


@pytest.mark.parametrize("bad", [(5, 0, 1, 0, 0), (5, 1, 0, 0, 0), (5, 1, 1, 0, -1)])
def test_impossible_counts_are_errors(bad):
    with pytest.raises(ValueError, match="at least 1"):
        step_rows(*bad)


# --- rows of a process -----------------------------------------------------------------------------------------------


def test_rows_of_a_process_by_hand():
    """12 rows, 2 updates, 2 processes: chunks 0-5 and 6-11;
    the first process has 0-2 and 6-8, the second 3-5 and 9-11.
    """
    assert process_rows(12, 2, 0, 2).tolist() == [0, 1, 2, 6, 7, 8]
    assert process_rows(12, 2, 1, 2).tolist() == [3, 4, 5, 9, 10, 11]


def test_rows_that_processes_do_not_divide():
    """Chunks of 5 for 2 processes: 2 and 3 rows, the same cut in both updates."""
    assert process_rows(10, 2, 0, 2).tolist() == [0, 1, 5, 6]
    assert process_rows(10, 2, 1, 2).tolist() == [2, 3, 4, 7, 8, 9]


@given(chunk=st.integers(1, 20), updates=st.integers(1, 5), world=st.integers(1, 6))
def test_every_update_sees_the_same_rows_for_any_number_of_processes(chunk, updates, world):
    """The u-th part of all processes together is the u-th chunk; slices are disjoint and differ by one row at most."""
    assume(chunk >= world)
    parts = [process_rows(chunk * updates, updates, rank, world).reshape(updates, -1) for rank in range(world)]
    for u in range(updates):
        assert torch.cat([part[u] for part in parts]).tolist() == list(range(u * chunk, (u + 1) * chunk))
    sizes = [part.shape[1] for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_updates_that_do_not_divide_name_the_nearest_number():
    """12 rows, 5 updates: 4 and 6 divide 12; 4 comes first."""
    with pytest.raises(AlignError, match=r"cut into 5 equal updates[\s\S]*Nearest possible: 4"):
        process_rows(12, 5, 0, 1)


def test_more_processes_than_rows_is_an_error():
    with pytest.raises(AlignError, match="an update has 3 samples for 4 processes"):
        process_rows(6, 2, 0, 4)
