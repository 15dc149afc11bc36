"""Groups of MMLU as its script has them."""

from mllm_npu.evaluate.tasks.mmlu_subjects import SUBCATEGORIES, groups_of


def test_there_are_57_subjects():
    assert len(SUBCATEGORIES) == 57
    assert list(SUBCATEGORIES) == sorted(SUBCATEGORIES)


def test_a_subject_has_a_category_and_a_subcategory():
    other = "other (business, health, misc.)"
    assert groups_of("philosophy") == ("humanities", "humanities/philosophy")
    assert groups_of("anatomy") == (other, f"{other}/health")
    assert groups_of("miscellaneous") == (other, f"{other}/other")


def test_no_two_groups_have_one_name():
    groups = {name for subject in SUBCATEGORIES for name in groups_of(subject)}
    assert not groups & set(SUBCATEGORIES)
    assert len(groups) == 4 + 17
