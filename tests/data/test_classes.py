from mutual_guidance.data.classes import confusable


def test_names_that_look_alike_are_told_together():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (fault,) = confusable(["tea", composed, decomposed, "CAFE"], "a.json")
    assert fault.file == "a.json" and fault.detail == f"{ascii(decomposed)}, {ascii(composed)}"
    assert not confusable(["m2", "m\u00b2"], "")
    (fault,) = confusable(["Traffic Light", "trafficlight"], "")
    assert fault.detail == "'Traffic Light', 'trafficlight'"
