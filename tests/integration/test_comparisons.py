"""CompareVectors and the values' mean delta and circumplex through the real server, beside numpy on the same vectors and files."""

import json
import re
import struct
import subprocess

import grpc
import ml_dtypes
import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, MODEL, ROOT, Server
from valuescope import v1
from valuescope.v1 import vectors_pb2_grpc

WIDTH, LAYERS = 576, [2, 9]
TEN = ["self-direction", "stimulation", "hedonism", "achievement", "power"]
TEN += ["security", "conformity", "tradition", "benevolence", "universalism"]
FAMILIES = ROOT / "tests" / "golden" / "families"


def rows(seed, count=1):
    return np.random.default_rng(seed).standard_normal((count, len(LAYERS), WIDTH))


@pytest.fixture(scope="module")
def stored(client):
    """Three vectors somebody gave, one of which is zero at the second layer."""
    arrays = rows(1, 3).astype(np.float32)
    arrays[2, 1] = 0
    names = [client.create_vector(MODEL, array, layers=LAYERS).name for array in arrays]
    return names, arrays.astype(np.float64)


@pytest.fixture(scope="module")
def extracted(client):
    generator = np.random.default_rng(5)
    responses = [
        vs.labelled(
            [int(i) for i in generator.integers(1000, 40000, 6)],
            [int(i) for i in generator.integers(1000, 40000, 5 + index)],
            bool(index % 2),
            f"q{index // 2}",
        )
        for index in range(16)
    ]
    halves = responses[:12], responses[4:]
    return [
        client.extract_vectors(MODEL, some, layers=[2, 5, 9], bootstrap_samples=0)
        for some in halves
    ]


@pytest.fixture(scope="module")
def pairs(client):
    """Ten values whose shared axes lie on a noisy circle; each pair's vectors differ by one direction and by noise."""
    generator = np.random.default_rng(11)
    plane = np.linalg.qr(generator.standard_normal((WIDTH, 2)))[0].T
    prompting = generator.standard_normal(WIDTH)
    made, arrays = {}, {}
    for index, value in enumerate(TEN):
        turn = np.radians(36 * index)
        axis = np.cos(turn) * plane[0] + np.sin(turn) * plane[1]
        pair = np.stack([axis, axis + 0.03 * prompting])[:, None, :]
        pair = (pair + 0.01 * generator.standard_normal((2, 2, WIDTH))).astype(np.float32)
        made[value] = tuple(
            client.create_vector(MODEL, array, layers=LAYERS).name for array in pair
        )
        arrays[value] = pair.astype(np.float64)
    return made, arrays


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def shared_axis(pair):
    u = np.linalg.svd(pair.T, full_matrices=False)[0][:, 0]
    return u * np.sign(u @ pair.sum(axis=0))


def circle_fit(axes, degrees):
    centred = axes - axes.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    x = u[:, :2] * s[:2]
    t = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
    t = t - t.mean(axis=0)
    sum_of_both = np.linalg.svd(x.T @ t, compute_uv=False).sum()
    return sum_of_both**2 / (x**2).sum() / (t**2).sum(), (s[:2] ** 2).sum() / (s**2).sum()


def read_tensor(folder, name):
    """A tensor of a model's files, widened to float64."""
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        entry = json.loads(data[8 : 8 + size]).get(name)
        if path.name in ("expected.safetensors", "interventions.safetensors") or entry is None:
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        kind = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[entry["dtype"]]
        return np.frombuffer(data[begin:end], kind).reshape(entry["shape"]).astype(np.float64)
    return None


# --- CompareVectors ---


def test_cosines_of_every_pair_are_numpys(client, stored):
    names, arrays = stored
    comparison = client.compare_vectors(names)
    assert comparison.layers == LAYERS
    for row in range(len(LAYERS)):
        for i in range(3):
            for j in range(i + 1, 3):
                found = comparison.cosines[row, i, j]
                if row == 1 and j == 2:  # a zero row has none
                    assert np.isnan(found)
                else:
                    expected = unit(arrays[i, row]) @ unit(arrays[j, row])
                    assert found == pytest.approx(expected, rel=1e-9)
    assert np.isnan(comparison.disattenuated_cosines).all()
    assert np.isnan(comparison.noise_floors).all()
    assert {entry.name for entry in comparison.response.digests} == set(names)
    only = client.compare_vectors(names, layers=[9])
    np.testing.assert_array_equal(only.cosines[0], comparison.cosines[1])


def test_what_is_known_of_halves_becomes_noise_floors_and_corrected_cosines(client, extracted):
    first, second = extracted
    comparison = client.compare_vectors([first.vector.name, second.vector.name])
    assert comparison.layers == [2, 5, 9]
    for entry, a, b in zip(
        comparison.response.cosines, first.statistics, second.statistics, strict=True
    ):
        r = a.split_half_cosine
        assert entry.HasField("noise_floor") == (r >= 0)
        if r >= 0:
            assert entry.noise_floor == pytest.approx(np.sqrt(1 - r * r), rel=1e-9)
        both = a.reliability > 0 and b.reliability > 0
        assert entry.HasField("disattenuated_cosine") == both
        if both:
            expected = entry.cosine / np.sqrt(a.reliability * b.reliability)
            assert entry.disattenuated_cosine == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("families"), f"--model_root={FAMILIES}", "--models=")
    with vs.Client(server.address, timeout=120) as client:
        yield client
    assert server.stop() == 0


@pytest.mark.parametrize("name", ["gemma2", "llama_tied", "llama3_rope", "qwen3", "qwen3_bf16"])
def test_tokens_of_a_vector_are_those_at_the_ends_of_the_unembedding(families, name):
    """Tied and not, in shards, in half types, and with a gain of 1 + weight."""
    folder, model = FAMILIES / name, f"models/{name}"
    families.load_model(model)
    families.wait_until_ready(model)
    head = read_tensor(folder, "lm_head.weight")
    if head is None:
        head = read_tensor(folder, "model.embed_tokens.weight")
    gain = read_tensor(folder, "model.norm.weight") + (name == "gemma2")
    arrays = np.random.default_rng(3).standard_normal((2, head.shape[1])).astype(np.float32)
    vector = families.create_vector(model, arrays, layers=[0, 1]).name
    comparison = families.compare_vectors([vector], top_tokens=7)
    assert comparison.layers == [0, 1]
    for layer in (0, 1):
        scores = head @ (gain * arrays[layer])
        order = np.argsort(-scores, kind="stable")
        found = comparison.tokens(vector, layer)
        assert [token.token_id for token in found.top] == list(order[:7])
        assert [token.token_id for token in found.bottom] == list(order[::-1][:7])
        np.testing.assert_allclose(
            [token.score for token in found.top], scores[order[:7]], rtol=1e-6, atol=1e-6
        )
    some = [token.token_id for token in found.top]
    assert [t.piece for t in found.top] == list(families.tokenize(model, some).pieces)


def test_tokens_need_a_residual_site_and_a_model_that_is_there(client, families):
    elsewhere = client.create_vector(MODEL, np.ones(1536), layers=[3], site="mlp_neurons").name
    with pytest.raises(vs.InvalidRequest) as refused:
        client.compare_vectors([elsewhere], top_tokens=1)
    assert refused.value.reason == "WRONG_SITE"
    assert client.compare_vectors([elsewhere, elsewhere]).cosines[0, 0, 1] == pytest.approx(1)
    embedding = client.create_vector(MODEL, np.ones(WIDTH), layers=[], site="embedding").name
    assert client.compare_vectors([embedding], top_tokens=1).layers == [0]
    families.load_model("models/mistral")
    families.wait_until_ready("models/mistral")
    width = families.model("models/mistral").hidden_size
    orphan = families.create_vector("models/mistral", np.ones(width), layers=[0]).name
    families.unload_model("models/mistral")
    assert families.compare_vectors([orphan]).response.digests
    with pytest.raises(vs.FailedPrecondition):
        families.compare_vectors([orphan], top_tokens=1)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"vectors": []}, "vectors"),
        ({"vectors": ["vectors/x"] * 65}, "vectors"),
        ({"vectors": ["models/x"]}, "vectors[0]"),
        ({"vectors": ["vectors/../x"]}, "vectors[0]"),
        ({"top_tokens": -1}, "top_tokens"),
        ({"top_tokens": 101}, "top_tokens"),
        ({"layers": v1.Layers(list=v1.LayerList(layers=[3]))}, "layers"),
        ({"layers": v1.Layers(list=v1.LayerList(layers=[-1]))}, "layers"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_field(server, stored, fields, field):
    request = v1.CompareVectorsRequest(**({"vectors": stored[0]} | fields))
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        vectors_pb2_grpc.VectorServiceStub(channel).CompareVectors(request, timeout=60)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.value.details()


def test_vectors_of_other_sites_and_names_that_do_not_exist(client, stored):
    names, _ = stored
    elsewhere = client.create_vector(MODEL, rows(2)[0], layers=LAYERS, site="mlp_output").name
    with pytest.raises(vs.InvalidRequest) as refused:
        client.compare_vectors([names[0], elsewhere])
    assert refused.value.reason == "WRONG_SITE"
    with pytest.raises(vs.NotFound):
        client.compare_vectors([names[0], "vectors/0123456789abcdef"])


def test_a_reply_that_is_too_large_says_what_to_ask_less_of(client):
    name = client.create_vector(MODEL, np.ones((30, WIDTH)), layers=range(30)).name
    with pytest.raises(vs.Exhausted, match="fewer `vectors` or `layers`") as refused:
        client.compare_vectors([name] * 64)
    assert refused.value.reason == "RESPONSE_TOO_LARGE"
    with pytest.raises(vs.Exhausted, match="fewer `top_tokens`"):
        client.compare_vectors([name] * 54, layers=range(30), top_tokens=100)


# --- Mean delta and circumplex ---


def test_mean_delta_and_circumplex_are_numpys(client, pairs):
    names, arrays = pairs
    comparison = client.compare_values(names, null_samples=500, seed=4, unit_deltas=True)
    response = comparison.response
    assert response.seed == 4
    assert comparison.layers == LAYERS and comparison.values == TEN
    mean_delta = client.vector_data(response.mean_delta.name)
    for row, (delta, circle) in enumerate(
        zip(response.mean_deltas, response.circumplexes, strict=True)
    ):
        deltas = unit(np.array([arrays[v][1, row] - arrays[v][0, row] for v in TEN]))
        mean = deltas.mean(axis=0)
        m = unit(mean)
        assert delta.norm == pytest.approx(np.linalg.norm(mean), rel=1e-9)
        explained = ((deltas @ m) ** 2).sum() / (deltas**2).sum()
        assert delta.explained_variance == pytest.approx(explained, rel=1e-9)
        pairwise = (deltas @ deltas.T)[np.triu_indices(10, 1)].mean()
        assert delta.mean_pairwise_cosine == pytest.approx(pairwise, rel=1e-9)
        np.testing.assert_allclose(mean_delta[LAYERS[row]], m, atol=1e-6)
        axes = np.array([shared_axis(arrays[v][:, row]) for v in TEN])
        r_squared, share = circle_fit(axes, 36 * np.arange(10))
        # The server's axes are rounded to float32.
        assert circle.r_squared == pytest.approx(r_squared, rel=1e-6)
        assert circle.plane_variance_share == pytest.approx(share, rel=1e-6)
        assert circle.r_squared > circle.null_95th_percentile > circle.null_mean > 0
        assert circle.null_p_value == pytest.approx(1 / 501)
        assert circle.permutation_p_value == pytest.approx(1 / 181440)
        assert circle.distinct_permutations == 181440
    assert response.mean_delta.provenance.sign_rule == "mean of v_prompt - v_int"
    assert {entry.name for entry in response.mean_delta.provenance.inputs} == {
        name for pair in names.values() for name in pair
    }
    # Identities of the parts: orthogonalised ones are, and asking for the circle renames nothing.
    part = response.decompositions[0].intrinsic_orthogonal.name
    for row, data in client.vector_data(part).items():
        prompted = arrays[TEN[0]][1, LAYERS.index(row)]
        assert abs(unit(data.astype(np.float64)) @ unit(prompted)) < 1e-5
    without = client.compare_values(names, angles=None, unit_deltas=True).response
    assert without.decompositions[0].intrinsic_orthogonal.name == part
    assert without.mean_delta.name == response.mean_delta.name


def test_the_null_follows_from_the_seed_and_four_domains_have_three_permutations(client, pairs):
    names, _ = pairs
    ask = {"null_samples": 300, "store": False}
    first, again, other = (
        client.compare_values(names, seed=seed, angles="four_domains", **ask) for seed in (1, 1, 2)
    )
    assert list(first.response.circumplexes) == list(again.response.circumplexes)
    circle, differently = first.response.circumplexes[0], other.response.circumplexes[0]
    assert circle.null_mean != differently.null_mean
    assert circle.r_squared == differently.r_squared
    assert circle.distinct_permutations == 3
    assert circle.permutation_p_value >= 1 / 3
    assert first.values[0] == "openness to change"
    nine = client.compare_values(names, angles="nine", **ask)
    angles = dict(zip(nine.values, nine.expected_angles, strict=True))
    assert angles["conformity"] == angles["tradition"] == 240


def test_degenerate_layers_are_named_and_numbers_stay_numbers(client):
    """Four values with one and the same pair of vectors but for one value, whose two are equal."""
    same = [client.create_vector(MODEL, rows(seed)[0], layers=LAYERS).name for seed in (20, 21)]
    pairs = {value: tuple(same) for value in TEN[:3]} | {TEN[3]: (same[0], same[0])}
    response = client.decompose_pairs(pairs, circumplex=v1.CircumplexOptions(), store=False)
    assert any("achievement" in w and "delta" in w for w in response.warnings), response.warnings
    equal = client.decompose_pairs(
        {value: tuple(same) for value in TEN[:4]}, circumplex=v1.CircumplexOptions(), store=False
    )
    assert not equal.circumplexes
    assert sum("all one" in warning for warning in equal.warnings) == len(LAYERS)
    none = client.decompose_pairs(dict.fromkeys("ab", (same[0], same[0])), store=False)
    assert any("are all 0" in warning for warning in none.warnings)
    for told in (response, equal, none):
        assert not re.search(r": -?(nan|inf)$", str(told), re.MULTILINE)
    assert [delta.norm for delta in none.mean_deltas] == [0, 0]


@pytest.mark.parametrize(
    ("values", "options", "field"),
    [
        (TEN[:3], {}, "`pairs`"),
        ([*TEN[:3], "envy"], {}, "`pairs[3].value`"),
        ([*TEN[:3], "Power"], {}, "universalism"),
        ([*TEN[:3], TEN[0]], {}, "`pairs[3].value`"),
        (TEN[:4], {"angles": 3}, "`circumplex.angles`"),
        (TEN[:4], {"angles": 99}, "`circumplex.angles`"),
        (TEN[:4], {"null_samples": 99}, "`circumplex.null_samples`"),
        (TEN[:4], {"null_samples": 100001}, "`circumplex.null_samples`"),
        (TEN[:4], {"null_samples": -5}, "`circumplex.null_samples`"),
    ],
)
def test_values_that_are_not_on_the_circle_are_refused_by_their_field(
    server, stored, values, options, field
):
    first, second, _ = stored[0]
    request = v1.DecomposeVectorsRequest(
        pairs=[v1.VectorPair(value=v, intrinsic=first, prompted=second) for v in values],
        circumplex=v1.CircumplexOptions(**options),
    )
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        vectors_pb2_grpc.VectorServiceStub(channel).DecomposeVectors(request, timeout=60)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.value.details()


# --- Command line ---


def valuescope(server, *arguments):
    done = subprocess.run(
        [str(BUILD / "client" / "cpp" / "valuescope"), "--server", server.address, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_compares(server, stored, pairs):
    names, _ = stored
    code, table, told = valuescope(server, "vectors", "compare", *names, "--top_tokens", "2")
    assert code == 0, told
    assert table.splitlines()[0].split()[:4] == ["FIRST", "SECOND", "LAYER", "COSINE"]
    assert "AGAINST" in table
    code, line, told = valuescope(server, "--json", "vectors", "compare", *names)
    assert code == 0, told
    assert len(json.loads(line)["cosines"]) == 6
    given = [f"{value}:{i}:{p}" for value, (i, p) in pairs[0].items()]
    code, table, told = valuescope(server, "vectors", "values", *given, "--angles", "nine")
    assert code == 0, told
    assert "CIRCLE R2" in table and "mean delta" in table
    code, _, told = valuescope(server, "vectors", "values", "power")
    assert code == 2 and "VALUE:INTRINSIC:PROMPTED" in told
    code, _, told = valuescope(server, "vectors", "values", *given[:3])
    assert code == 3 and "pairs" in told
