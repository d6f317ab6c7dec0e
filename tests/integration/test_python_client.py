"""The Python client against the real server: asyncio, batches, arrays, errors and cancellation as a researcher meets them."""

import asyncio
import re
import time

import numpy as np
import pytest
import valuescope as vs
from conftest import MODEL
from valuescope import v1

WIDTH, LAYERS = 576, 30
PROMPT = "The sea is"
# Longer than any test waits: what ends it is what the test looks for.
ENDLESS = {"max_tokens": 6000, "temperature": 0.0, "ignore_eos": True}


def running(server):
    return float(re.search(r"^valuescope_requests_running (\S+)$", server.metrics(), re.M)[1])


def await_idle(server, seconds=60):
    until = time.monotonic() + seconds
    while running(server) > 0:
        assert time.monotonic() < until, "the server still generates"
        time.sleep(0.05)


def with_async_client(server, action):
    async def main():
        async with vs.AsyncClient(server.address, timeout=120) as client:
            await client.wait_until_ready(MODEL)
            return await action(client)

    return asyncio.run(main())


def test_connect_finds_the_model_and_shows_it(server, client):
    with vs.connect(server.address) as connected:
        models = connected.models()
        assert MODEL in [model.name for model in models]
        assert MODEL in models._repr_html_()


def test_both_clients_give_the_same_tokens_and_receipts(server, client):
    steer = vs.Steer(np.ones(WIDTH), 0.5, layers=[3, 14])
    arguments = {"steer": steer, "max_tokens": 3, "temperature": 0.0}
    plain = client.generate(MODEL, PROMPT, **arguments)
    awaited = with_async_client(
        server, lambda client: client.generate(MODEL, [PROMPT, PROMPT], **arguments)
    )
    for generation in awaited:
        assert generation.token_ids == plain.token_ids
        assert list(generation.receipts) == list(plain.receipts)
    assert "#0 touched 3 positions of layers 3, 14" in repr(plain)


def test_streams_of_one_loop_run_side_by_side(server):
    async def action(client):
        async def text(prompt):
            stream = client.stream(MODEL, prompt, max_tokens=3, temperature=0.0)
            return "".join([event.delta.text async for event in stream])

        streamed = await asyncio.gather(text("The sea is"), text("A colour is"))
        whole = await client.generate(
            MODEL, ["The sea is", "A colour is"], max_tokens=3, temperature=0.0
        )
        assert streamed == [generation.text for generation in whole]

    with_async_client(server, action)


def test_a_batch_is_shown_and_in_order(client, capsys):
    prompts = [f"{word} is" for word in ["Red", "Blue", "Green", "Black"]]
    batch = client.generate(MODEL, prompts, max_tokens=2, temperature=0.0, progress="colours")
    assert "4/4" in capsys.readouterr().err
    single = client.generate(MODEL, prompts[2], max_tokens=2, temperature=0.0)
    assert batch[2].token_ids == single.token_ids


def test_a_batch_keeps_the_error_of_one_prompt(client):
    results = client.generate(
        MODEL, [PROMPT, [10**8]], max_tokens=1, temperature=0.0, on_error="return"
    )
    assert results[0].token_ids
    assert isinstance(results[1], vs.InvalidRequest)


def test_captures_name_their_axes(client):
    taps = [
        vs.tap("residual_post", [3, 14]),
        vs.tap("mlp_neurons", 5, "response", "mean"),
        vs.tap("final_norm", tokens="last"),
    ]
    found = client.capture(MODEL, [(PROMPT, " blue and wide"), "Hello"], taps[:1])
    assert [one[0].shape for one in found] == [
        (2, found[0].num_prompt_tokens + found[0].num_response_tokens, WIDTH),
        (2, found[1].num_prompt_tokens, WIDTH),
    ]
    assert found[0].layers == {0: [3, 14]}
    assert found[0].positions == {0: list(range(found[0][0].shape[1]))}
    (reduced,) = client.capture(MODEL, [(PROMPT, " blue")], taps[1:])
    assert reduced[0].shape == (1, 1, 1536)
    assert reduced.positions[0] == list(
        range(reduced.num_prompt_tokens, reduced.positions[0][-1] + 1)
    )
    assert reduced[1].shape == (1, 1, WIDTH) and reduced.layers[1] == []


def test_a_generation_gives_its_activations(client):
    generation = client.generate(
        MODEL, PROMPT, taps=[vs.tap(layers=14, tokens="response")], max_tokens=3, temperature=0.0
    )
    (again,) = client.capture(
        MODEL, [(PROMPT, generation.token_ids)], [vs.tap(layers=14, tokens="response")]
    )
    np.testing.assert_array_equal(generation.captures[0][0], again[0])


def test_vectors_come_back_as_they_were_stored(client):
    rows = np.random.default_rng(5).standard_normal((2, WIDTH)).astype(np.float32)
    name = client.create_vector(MODEL, rows, layers=[4, 9]).name
    stored = client.vector_data(name)
    np.testing.assert_array_equal([stored[4], stored[9]], rows)
    client.delete_vector(name)
    with pytest.raises(vs.NotFound):
        client.vector(name)


def test_inline_tensors_of_bfloat16_steer_like_their_widened_selves(client):
    row = vs.from_numpy(np.linspace(-1, 1, WIDTH), dtype="bfloat16")

    def tokens(tensor):
        steer = vs.Steer(np.zeros(WIDTH), 4.0, layers=10).to_intervention()
        steer.add.tensor.CopyFrom(tensor)
        generation = client.generate(
            MODEL, PROMPT, steer=steer, max_tokens=3, temperature=0.0, logprobs=0
        )
        return generation.token_ids, generation.logprobs.tolist()

    assert tokens(row) == tokens(vs.from_numpy(vs.to_numpy(row)))


def test_an_error_names_the_field_and_the_request(client):
    with pytest.raises(vs.InvalidRequest) as caught:
        client.generate(MODEL, PROMPT, temperature=-1.0)
    error = caught.value
    assert [violation.field for violation in error.violations] == ["sampling.temperature"]
    assert error.reason and len(error.request_id) == 36
    assert error.request_id in str(error)


def test_the_request_id_of_an_error_stands_in_the_servers_log(server, client):
    with pytest.raises(vs.NotFound) as caught:
        client.model("models/none")
    assert caught.value.request_id in server.log.read_text()


def test_leaving_a_stream_ends_it_on_the_server(server, client):
    stream = client.stream(MODEL, PROMPT, **ENDLESS)
    next(stream)
    assert running(server) > 0
    stream.close()
    await_idle(server)


def test_cancelling_a_task_ends_its_generations_on_the_server(server):
    async def action(client):
        task = asyncio.create_task(client.generate(MODEL, [PROMPT, "Hello"], **ENDLESS))
        while await asyncio.to_thread(running, server) < 2:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(await_idle, server)

    with_async_client(server, action)


def test_a_deadline_ends_the_generation_on_the_server(server, client):
    with pytest.raises(vs.DeadlineExceeded):
        client.with_timeout(1.0).generate(MODEL, PROMPT, **ENDLESS)
    await_idle(server)


def test_jobs_run_from_asyncio_with_a_bar(server, capsys):
    async def action(client):
        rows = np.random.default_rng(1).standard_normal((1, WIDTH))
        vector = await client.create_vector(MODEL, rows, layers=[3])
        responses = [
            vs.labelled(f"Question {i}?", [1000 + i, 2000 + i], bool(i % 2)) for i in range(8)
        ]
        artifact = await client.write_artifact(responses, display_name="few.jsonl")
        spec = v1.JobSpec(
            attribute_neurons=vs.attribution_request(MODEL, artifact.name, vector.name, layers=[3])
        )
        job = await client.create_job(spec, display_name="<few>")
        done = await client.wait_for_job(job.name, progress="attribution")
        assert done.state == v1.JOB_STATE_SUCCEEDED
        assert "&lt;few&gt;" in (await client.jobs())._repr_html_()
        summary = {a.role: a.artifact for a in done.result.artifacts}["summary"]
        assert (await client.read_artifact(summary)).startswith(b"{")

    with_async_client(server, action)
    assert "8/8" in capsys.readouterr().err
