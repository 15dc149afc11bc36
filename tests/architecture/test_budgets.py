"""Files and functions stay small, and the tests keep up with the code."""

import statistics

SOFT_FILE_LINES = 300
HARD_FILE_LINES = 500
SHARE_OVER_SOFT = 0.05
TYPICAL_FUNCTION_LINES = 40
LONGEST_FUNCTION_LINES = 80
TEST_LINES_PER_SOURCE_LINE = 0.6


def long_functions(sources, limit: int) -> list[str]:
    return [
        f"{source.path}:{name} has {length} lines"
        for source in sources
        for name, length in source.functions()
        if length > limit
    ]


def long_files(sources, limit: int) -> list[str]:
    over = [source for source in sources if source.num_lines > limit]
    return [f"{source.path} has {source.num_lines} lines" for source in over]


def test_no_file_passes_the_hard_limit(product, test_sources):
    assert long_files(product + test_sources, HARD_FILE_LINES) == []


def test_few_files_pass_the_soft_limit(product, test_sources, record_property):
    files = product + test_sources
    over = long_files(files, SOFT_FILE_LINES)
    record_property("files_over_soft_limit", over)
    assert len(over) <= SHARE_OVER_SOFT * len(files), over


def test_no_function_is_too_long(product):
    assert long_functions(product, LONGEST_FUNCTION_LINES) == []


def test_nine_in_ten_functions_are_short(package):
    lengths = [length for source in package for _, length in source.functions()]
    ninth_decile = statistics.quantiles(lengths, n=10)[-1]
    assert ninth_decile <= TYPICAL_FUNCTION_LINES, long_functions(package, TYPICAL_FUNCTION_LINES)


def test_tests_keep_up_with_the_code(package, test_sources):
    code = sum(source.num_lines for source in package)
    tests = sum(source.num_lines for source in test_sources)
    assert tests >= TEST_LINES_PER_SOURCE_LINE * code, f"{tests} test lines for {code} lines"


def test_the_budgets_can_be_broken(parse):
    body = "    pass\n" * 80
    too_long = parse(f"def grow():\n{body}" + "\n" * 420)
    assert long_functions([too_long], LONGEST_FUNCTION_LINES) == ["example.py:grow has 81 lines"]
    assert long_files([too_long], HARD_FILE_LINES) == ["example.py has 501 lines"]
    assert long_functions([parse("def f():\n    pass\n")], LONGEST_FUNCTION_LINES) == []
