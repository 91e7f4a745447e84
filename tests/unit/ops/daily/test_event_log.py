from tradsys.ops.daily import event_log
from tradsys.ops.daily.event_log import RunLog


def test_lines_come_back_in_order_and_filtered(tmp_path):
    log = RunLog(tmp_path / "runs")
    log.write("stage done", stage="prices", seconds=0.25)
    log.write("stage done", stage="labels", seconds=0.5)
    log.write("failed", error="no bars")
    assert [line["event"] for line in log.lines()] == ["stage done", "stage done", "failed"]
    assert [line["seconds"] for line in log.lines(event="stage done", stage="labels")] == [0.5]
    assert all(line["at"].endswith("+00:00") for line in log.lines())


def test_a_line_torn_by_a_crash_costs_that_line_alone(tmp_path):
    log = RunLog(tmp_path)
    log.write("first")
    whole = log.path.read_text()
    log.write("second")
    log.path.write_text(log.path.read_text()[:-20])  # the process died inside a write
    log.write("third")
    assert [line["event"] for line in log.lines()] == ["first", "third"]
    assert log.path.read_text().startswith(whole)


def test_no_password_reaches_the_log(tmp_path):
    RunLog(tmp_path).write("failed", error="no answer of postgresql://lab:secret@db/ledger")
    assert "secret" not in (tmp_path / "log.jsonl").read_text()


def test_a_log_that_is_not_there_has_no_lines(tmp_path):
    assert RunLog(tmp_path).lines() == []


def test_a_large_log_is_rotated_and_both_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "MOST_BYTES", 200)
    log = RunLog(tmp_path)
    for k in range(5):
        log.write("run", number=k)
    assert log.rotated.exists()
    numbers = [line["number"] for line in log.lines(event="run")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 4
