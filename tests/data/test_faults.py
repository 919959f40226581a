from mutual_guidance.data.faults import DROPPED, TOLD, Fault, fault_table, repeated, write_faults


def test_a_row_a_reason_with_three_examples():
    faults = [Fault(f"{i}.xml", "box is flat", f"line {i}", DROPPED) for i in range(40)]
    faults += [Fault("a.json", "no image"), Fault("b.json", "odd", effect=TOLD, count=1000)]
    lines = fault_table(faults).splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["stops", "1"], ["dropped", "40"]]
    assert "no image" in lines[2] and lines[3].endswith("0.xml: line 0")
    assert lines[5].strip() == "2.xml: line 2" and lines[6].split()[:2] == ["told", "1000"]
    assert len(lines) == 7


def test_of_many_reasons_the_rest_is_counted():
    table = fault_table([Fault("a", f"reason {i}") for i in range(33)])
    assert len(table.splitlines()) == 33 and table.endswith("... and more reasons: 3 stops")


def test_every_fault_is_in_the_file(tmp_path):
    write_faults([Fault("a\udcff", "odd", "line 1", TOLD, 2)], str(tmp_path / "new" / "faults.txt"))
    assert (tmp_path / "new" / "faults.txt").read_text() == "told\t2\ta\\udcff\todd\tline 1\n"


def test_names_add_no_line_or_column_to_the_list(tmp_path):
    write_faults([Fault("a\nstops\t1\tb", "odd", effect=TOLD)], str(tmp_path / "faults.txt"))
    assert (tmp_path / "faults.txt").read_text() == "told\t1\ta\\nstops\\t1\\tb\todd\t\n"


def test_repeated():
    assert repeated(["b", 1, "b", "a", 1, "c"]) == [1, "b"]
