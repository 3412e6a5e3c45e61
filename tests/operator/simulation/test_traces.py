"""Traces of every published layout are read, and a wrong one is refused by file, line and what is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tandem_operator.simulation.reading import read_workload
from tandem_operator.simulation.servegen import read_servegen
from tandem_operator.simulation.traced import Traced
from tandem_operator.simulation.traces import Row, Rows, TraceError, read_trace, spread_stamps

SHARED = Path(__file__).parents[4] / "shared" / "traces"

LAYOUTS = {
    "azure2023.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:48.1805900,396,109\n",
    "azure2024.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,374,44\n"
    "2024-05-10 00:00:01.509930+00:00,396,109\n",
    "aibrix.csv": "timestamp_ms,prompt_len,output_len\n6000,374,44\n7500,396,109\n",
    "burstgpt.csv": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,374,44,418,Conversation log\n6.5,GPT-4,396,109,505,API log\n",
    "vidur.csv": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,374,44\n2.0,396,109\n",
    "mooncake.jsonl": '{"timestamp": 1000, "input_length": 374, "output_length": 44, "hash_ids": [1]}\n\n'
    '{"timestamp": 2500, "input_length": 396, "output_length": 109, "hash_ids": [1]}\n',
    "bailian.jsonl": '{"chat_id": 1, "timestamp": 1, "input_length": 374, "output_length": 44, "hash_ids": [1, 2]}\n'
    '{"chat_id": 2, "timestamp": 2.5, "input_length": 396, "output_length": 109, "hash_ids": [1, 3]}\n',
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_gives_the_same_requests_from_time_zero(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(LAYOUTS[name])
    rows = read_trace(tmp_path / name).rows
    assert [row[1:3] for row in rows] == [(374, 44), (396, 109)]
    assert [row.t_s for row in rows] == pytest.approx([0.0, 1.5], abs=1e-6)


def test_blocks_are_512_tokens_in_mooncakes_layout_and_16_in_bailians(tmp_path: Path) -> None:
    for name, tokens in (("mooncake.jsonl", 512), ("bailian.jsonl", 16), ("aibrix.csv", 0)):
        (tmp_path / name).write_text(LAYOUTS[name])
        assert read_trace(tmp_path / name).block_tokens == tokens


def test_compressed_unsorted_and_with_a_byte_order_mark_it_is_read_all_the_same(tmp_path: Path) -> None:
    text = "\ufefftimestamp_ms,prompt_len,output_len\n7500,396,109\n6000,374,44\n"
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert [row.prompt_tokens for row in read_trace(path).rows] == [374, 396]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("timestamp_ms,prompt_len,output_len\n", "has no requests"),
        ("timestamp_ms,prompt_len\n1,2\n", "line 1: no column for the output tokens"),
        ("when,prompt_len,output_len\n1,2,3\n", "line 1: no column for the arrival time"),
        ("timestamp_ms,prompt_len,output_len\n1,2,3\n4,x,6\n", "line 3: prompt_len is 'x', a number is needed"),
        ("timestamp_ms,prompt_len,output_len\n1,2,3\n4,-1,6\n", "line 3: prompt_len is '-1', a whole number is needed"),
        ("timestamp_ms,prompt_len,output_len\n1,2,3\n4,5\n", "line 3: 2 columns, the header has 3"),
        ("timestamp_ms,prompt_len,output_len\nnan,2,3\n", "line 2: timestamp_ms is 'nan', a finite number"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,2,3\n", "line 2: timestamp is 'yesterday', neither"),
        ('{"timestamp": 1, "input_length": 3}\n', "line 1: none of output_tokens"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 1}\n{"timesta\n', "line 2: not JSON"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 1, "hash_ids": ["a"]}\n', "line 1: hash_ids is a list"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    with pytest.raises(TraceError, match=complaint.replace("(", r"\(")) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("absent", "binary"):
        with pytest.raises(TraceError, match=f"{name} cannot be read"):
            read_trace(tmp_path / name)


def test_stamps_rounded_to_three_seconds_are_spread_and_fine_ones_are_left() -> None:
    rounded = [Row(3.0 * (index // 6), 1, 1) for index in range(60)]
    spread = [row.t_s for row in spread_stamps(rounded)]
    assert spread == pytest.approx([0.5 * index for index in range(60)])
    fine = [Row(0.01 * (index // 2), 1, 1) for index in range(60)]
    assert spread_stamps(fine) == fine


def test_a_scaled_trace_keeps_its_rate_curve_and_its_lengths_and_a_copy_has_prefixes_of_its_own() -> None:
    rows = [Row(0.5 * index, 100 + index, 10, blocks=(index % 3,)) for index in range(400)]
    scaled = list(Traced(Rows(rows, 512), scale=2.5).requests(1))
    assert len(scaled) == pytest.approx(1000, rel=0.05)
    assert [request.arrived_s for request in scaled] == sorted(request.arrived_s for request in scaled)
    assert len({block for request in scaled for block in request.blocks}) == 9
    first = [request for request in scaled if request.arrived_s < 100]
    assert len(first) == pytest.approx(500, rel=0.1)
    plain = list(Traced(Rows(rows, 512), start_s=50.0, length_s=10.0).requests(1))
    assert [request.prompt_tokens for request in plain] == list(range(200, 221))


def test_servegen_makes_its_clients_rates_with_lengths_and_borrows_what_is_missing(tmp_path: Path) -> None:
    clients, tokens = tmp_path / "clients.csv", tmp_path / "tokens.csv"
    clients.write_text(
        "client,window_start_s,rate_rps,cv,pattern,p1,p2\n1,0,2.0,2,Gamma,0.25,2\n2,0,3.0,1,Weibull,1.0,0.3\n"
        "1,600,8.0,2,Gamma,0.25,2\n"
    )
    tokens.write_text(
        "client,window_start_s,field,mean,q05,q25,q50,q75,q90,q95,q99\n1,0,input_tokens,1,10,20,30,40,50,60,70\n"
        "1,0,output_tokens,1,5,5,5,5,5,5,5\n"
    )
    made = read_servegen(clients, tokens, 2.0, 0.0, 1200.0)
    requests = list(made.requests(3))
    assert [made.rate_per_s(t_s) for t_s in (0.0, 599.0, 600.0)] == [10.0, 10.0, 16.0]
    assert len(requests) == pytest.approx(600 * 26, rel=0.05)
    assert sorted(request.prompt_tokens for request in requests)[len(requests) // 2] == pytest.approx(30, abs=2)
    tokens.write_text("client,window_start_s,field,mean\n")
    with pytest.raises(TraceError, match="line 1: no column q05"):
        read_servegen(clients, tokens, 1.0, 0.0, 1.0)
    clients.write_text("client,window_start_s,rate_rps,cv,pattern,p1,p2\n1,0,2.0,2,Pareto,0.25,2\n")
    with pytest.raises(TraceError, match="line 2: pattern is 'Pareto'; known: Gamma, Weibull"):
        read_servegen(clients, tokens, 1.0, 0.0, 1.0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/traces beside the repo")
def test_the_published_traces_have_the_statistics_that_the_built_in_ones_imitate() -> None:
    azure = read_trace(SHARED / "azure2023_conv.csv").rows
    assert len(azure) == 19_366
    assert sum(row.prompt_tokens for row in azure) / len(azure) == pytest.approx(1155, abs=1)
    mooncake = read_trace(SHARED / "mooncake_fast25_synthetic.jsonl")
    assert (len(mooncake.rows), mooncake.block_tokens) == (3993, 512)
    assert len(read_trace(SHARED / "aibrix_8min_up_and_down.csv").rows) == 2026


def test_a_line_of_json_may_have_fields_nobody_knows(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 3, "output_length": 0, "session": "x", "turn": 3}
    (tmp_path / "trace.jsonl").write_text(json.dumps(row) + "\n")
    assert read_trace(tmp_path / "trace.jsonl").rows == [Row(0.0, 3, 1)]


def test_which_layout_a_file_has_is_seen_from_its_columns(tmp_path: Path) -> None:
    (tmp_path / "aibrix.csv").write_text(LAYOUTS["aibrix.csv"])
    assert len(list(read_workload(tmp_path / "aibrix.csv", length_s=5.0).requests(0))) == 2
    total = tmp_path / "total.csv"
    total.write_text("window_start_s,total_rate_rps,active_clients\n0,10,3\n600,20,3\n1200,30,3\n")
    made = list(read_workload(total, scale=0.5, start_s=600.0, length_s=600.0).requests(0))
    assert len(made) == pytest.approx(600 * 10, rel=0.1)
    (tmp_path / "clients.csv").write_text("client,window_start_s,rate_rps,cv,pattern,p1,p2\n1,0,2.0,2,Gamma,1.0,2\n")
    with pytest.raises(TraceError, match=r"a file of clients and one of tokens; missing: .*tokens\.csv"):
        read_workload(tmp_path / "clients.csv")
    (tmp_path / "tokens.csv").write_text(
        "client,window_start_s,field,mean,q05,q25,q50,q75,q90,q95,q99\n1,0,input_tokens,1,1,2,3,4,5,6,7\n"
        "1,0,output_tokens,1,5,5,5,5,5,5,5\n"
    )
    for name in ("clients.csv", "tokens.csv"):
        assert len(list(read_workload(tmp_path / name, length_s=600.0).requests(0))) == pytest.approx(1200, rel=0.15)
    with pytest.raises(TraceError, match="no requests in the part"):
        read_workload(tmp_path / "clients.csv", start_s=6000.0, length_s=60.0)
    with pytest.raises(TraceError, match="absent cannot be read"):
        read_workload(tmp_path / "absent")
