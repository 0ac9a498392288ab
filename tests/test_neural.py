"""The neural ears: parity with the model library, refused weights, windows, blocks, fallbacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import neural_audio_tokenizer as nat  # noqa: E402

torch = pytest.importorskip("torch", reason="the neural ears need torch")
pytest.importorskip("transformers", reason="the neural ears need transformers")
pytest.importorskip("soxr", reason="the neural ears resample with soxr on a CPU")

from conftest import EXAMPLE  # noqa: E402
from make_random_models import write_model  # noqa: E402

RATE = 22050
CASES = [
    ("mert-95m", False), ("mert-95m", True), ("mert-330m", False), ("mert-330m", True),
    ("wav2vec2-base", False), ("wav2vec2-base", True),
]  # fmt: skip


def noise(seconds: float, seed: int = 7) -> np.ndarray:
    """Noise whose level swings, so that windows differ."""
    samples = round(seconds * RATE)
    swing = 0.2 * (1.1 + np.sin(np.arange(samples) / RATE))
    return (swing * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that returns a directory with a tiny model of some shape."""
    made: dict[Any, Path] = {}

    def make(shape: str, safetensors: bool = False) -> Path:
        key = (shape, safetensors)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(shape)
            write_model(made[key], shape, tiny=True, safetensors=safetensors)
        return made[key]

    return make


def settings_for(path: Path, shape: str = "mert-95m", **changes: Any) -> nat.Settings:
    name = "wav2vec2" if shape == "wav2vec2-base" else "mert"
    fields = {"codebook_init": name, f"{name}_model": str(path), f"{name}_layer": 3}
    return nat.Settings(**{**fields, "device": "cpu", **changes})


def hear(settings: nat.Settings, audio: np.ndarray, block: int = 1 << 30) -> np.ndarray:
    ear = nat.open_neural_ear(settings).listen()
    rows = [ear.push(audio[at : at + block]) for at in range(0, len(audio), block)]
    return np.concatenate([*rows, ear.flush()])


def library_states(path: Path, shape: str, sound: np.ndarray) -> tuple[Any, ...]:
    """All hidden states of the full model as transformers loads and computes them."""
    from transformers import HubertModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    kind = Wav2Vec2Model if shape == "wav2vec2-base" else HubertModel
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(path)
    values = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        model = kind.from_pretrained(path).eval()
        return model(values.input_values, output_hidden_states=True).hidden_states


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("shape, safetensors", CASES)
def test_hidden_states_are_the_librarys(directory: Any, shape: str, safetensors: bool) -> None:
    path = directory(shape, safetensors)
    family = nat.WAV2VEC2 if shape == "wav2vec2-base" else nat.MERT
    sound = noise(3.0)
    states = library_states(path, shape, sound)
    for layer in range(5):
        settings = settings_for(path, shape, **{f"{family.name}_layer": layer})
        found = nat.load_neural_model(family, settings).forward(sound[None])[0]
        assert relative(found, states[layer].numpy()[0]) < 1e-4, layer


@pytest.mark.parametrize("shape", ["mert-95m", "mert-330m", "wav2vec2-base"])
def test_native_features_of_one_window_are_the_librarys(directory: Any, shape: str) -> None:
    import soxr

    path = directory(shape)
    ears = nat.open_neural_ear(settings_for(path, shape, save_features=True))
    ear, audio = ears.listen(), noise(9.0)
    ear.push(audio)
    ear.flush()
    sound = soxr.resample(audio, RATE, ears.models[0].sample_rate)
    wanted = library_states(path, shape, sound)[3].numpy()[0]
    assert ear.native()[0][1].shape == wanted.shape
    assert relative(ear.native()[0][1], wanted) < 1e-4


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Copy a model directory, its tensors changed."""
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True)
    target.mkdir()
    torch.save(change(tensors) or tensors, target / "pytorch_model.bin")
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


KEY = "encoder.layers.1.attention.k_proj.weight"
UNUSED = "encoder.layers.3.attention.k_proj.weight"
NORM = "encoder.pos_conv_embed.conv.weight_g"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.update(renamed=t.pop(KEY)), ("missing", KEY, "unexpected", "renamed")),
        (lambda t: t.pop(KEY) is None, ("missing", KEY)),
        (lambda t: t.pop(UNUSED) is None, ("missing", UNUSED)),
        (lambda t: t.pop(NORM) is None, ("missing", "pos_conv_embed")),
        (lambda t: t.update(extra=torch.zeros(3)), ("unexpected", "extra")),
        (lambda t: t.update({KEY: t[KEY][:4]}), ("misshapen", KEY)),
        (lambda t: t[KEY].fill_(float("nan")) is None, ("finite", KEY)),
        (lambda t: {"state_dict": t}, ("more than named tensors",)),
        (lambda t: t.update({KEY: torch.zeros_like(t[KEY]).int()}), ("floating", KEY)),
    ],
)
def test_wrong_weights_are_refused(
    directory: Any, tmp_path: Path, change: Any, words: tuple[str, ...]
) -> None:
    path = rewrite(directory("mert-95m"), tmp_path / "model", change)
    with pytest.raises(nat.MissingError) as caught:
        nat.open_neural_ear(settings_for(path))
    assert all(word in str(caught.value) for word in words), caught.value


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_pickled_code_is_refused_and_not_run(
    directory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change = lambda tensors: {**tensors, "evil": Payload()}  # noqa: E731
    path = rewrite(directory("mert-95m"), tmp_path / "model", change)
    with pytest.raises(nat.MissingError, match="cannot be read as weights"):
        nat.open_neural_ear(settings_for(path))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("damage", [b"", b"not weights", b"PK\x03\x04 nor a zip"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_damaged_files_are_refused(
    directory: Any, tmp_path: Path, name: str, damage: bytes
) -> None:
    config = (directory("mert-95m") / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(nat.MissingError, match="cannot be read as weights"):
        nat.open_neural_ear(settings_for(tmp_path))


@pytest.mark.parametrize(
    "keys, word",
    [
        ({"feature_extractor_cqt": True}, "feature_extractor_cqt"),
        ({"deepnorm": True}, "deepnorm"),
        ({"num_attention_heads": 5}, "config.json"),
        ({"conv_dim": [24]}, "config.json"),
        ({"hidden_size": "many"}, "config.json"),
        ({"hidden_size": 48}, "misshapen"),
        ({"conv_pos_batch_norm": True}, ""),
    ],
)
def test_configs_that_plain_hubert_cannot_serve_are_refused(
    directory: Any, tmp_path: Path, keys: dict[str, Any], word: str
) -> None:
    path = rewrite(directory("mert-95m"), tmp_path / "model", lambda tensors: None)
    config = {**json.loads((path / "config.json").read_text()), **keys}
    (path / "config.json").write_text(json.dumps(config))
    if not word:  # a key of training or of other classes, which decides nothing here
        nat.open_neural_ear(settings_for(path))
        return
    with pytest.raises(nat.MissingError, match=word):
        nat.open_neural_ear(settings_for(path))


def test_a_layer_that_is_not_there_is_a_usage_error(directory: Any) -> None:
    with pytest.raises(nat.UsageError, match="0 to 4"):
        nat.open_neural_ear(settings_for(directory("mert-95m"), mert_layer=5))


def test_identity_says_what_decides_the_features(directory: Any, tmp_path: Path) -> None:
    def identity(path: Path, **changes: Any) -> str:
        return nat.open_neural_ear(settings_for(path, **changes)).identity

    path = directory("mert-95m")
    same = rewrite(path, tmp_path / path.name, lambda tensors: None)
    other = rewrite(path, tmp_path / "x", lambda t: t[KEY].mul_(1.5) is None)
    unheard = rewrite(path, tmp_path / "y", lambda t: t[UNUSED].mul_(1.5) is None)
    assert identity(path) == identity(same)
    assert identity(path) != identity(other)
    assert identity(path).split()[2] == identity(unheard).split()[2]
    assert identity(path) != identity(path, mert_layer=2)
    assert identity(path) != identity(path, precision="bf16")


@pytest.mark.parametrize("shape", ["mert-95m", "wav2vec2-base"])
def test_blocks_leave_no_trace(directory: Any, shape: str) -> None:
    settings, audio = settings_for(directory(shape), shape), noise(25.0)
    whole = hear(settings, audio)
    assert whole.shape == (-(-len(audio) // 512), 32)
    for block in (1000, 7777):
        assert np.array_equal(hear(settings, audio, block), whole)
    assert np.array_equal(hear(settings, audio), whole)


def test_live_listening_gives_the_same(directory: Any) -> None:
    audio, ears = noise(40.0), nat.open_neural_ear(settings_for(directory("mert-95m")))
    rows = []
    for batch, live in ((1, False), (3, True), (3, False)):
        ears.models[0].batch = batch
        ear = ears.listen(live=live)
        rows.append(np.concatenate([ear.push(audio[:500000]), ear.push(audio[500000:])]))
        rows[-1] = np.concatenate([rows[-1], ear.flush()])
    assert np.array_equal(rows[0], rows[1])
    assert relative(rows[2], rows[0]) < 1e-4


@pytest.mark.parametrize("shape, window", [("mert-95m", 10.0), ("wav2vec2-base", 10.0)])
@pytest.mark.parametrize("extra", [-220498, -220280, -1, 0, 1, 512, 5000, 180000])
def test_any_length_has_all_its_rows(directory: Any, shape: str, window: float, extra: int) -> None:
    samples = round(window * RATE) + extra
    audio = noise(20.0)[:samples]
    settings = settings_for(directory(shape), shape, save_features=True)
    ear = nat.open_neural_ear(settings).listen()
    rows = np.concatenate([ear.push(audio), ear.flush()])
    assert rows.shape == (-(-samples // 512), 32) and np.isfinite(rows).all()
    model = ear._listeners[0]._model
    heard = max(model.field, round(samples * model.sample_rate / RATE))
    assert len(ear.native()[0][1]) == (heard - model.field) // model.hop + 1


def test_silence_and_nothing(directory: Any) -> None:
    settings = settings_for(directory("mert-95m"))
    assert hear(settings, np.zeros(0, np.float32)).shape == (0, 32)
    silence = hear(settings, np.zeros(RATE, np.float32))
    assert silence.shape == (44, 32) and np.isfinite(silence).all()


def test_windows_are_where_they_should_be(directory: Any) -> None:
    """Frames of 25 s come from windows at 0, 8 and 15 s, each without its neighbours' context."""
    import soxr

    audio = noise(25.0)
    ears = nat.open_neural_ear(settings_for(directory("mert-95m"), save_features=True))
    ear = ears.listen()
    ear.push(audio)
    ear.flush()
    model, sound = ears.models[0], soxr.resample(audio, RATE, 24000)
    parts = [model.forward(sound[None, s * 24000 : s * 24000 + 240000])[0] for s in (0, 8, 15)]
    wanted = np.concatenate([parts[0][:675], parts[1][75:675], parts[2][1275 - 1125 :]])
    assert ear.native()[0][1].shape == wanted.shape
    assert relative(ear.native()[0][1], wanted) < 1e-4


def test_a_quiet_sound_is_heard_like_a_loud_one(directory: Any) -> None:
    settings, audio = settings_for(directory("mert-95m")), noise(4.0)
    assert relative(hear(settings, audio * 1e-3), hear(settings, audio)) < 0.02


def test_two_ears_side_by_side(directory: Any) -> None:
    mert, wav2vec2 = directory("mert-95m"), directory("wav2vec2-base")
    both = nat.Settings(
        codebook_init="mert+wav2vec2", mert_model=str(mert), wav2vec2_model=str(wav2vec2),
        mert_layer=3, wav2vec2_layer=3, device="cpu", save_features=True,
    )  # fmt: skip
    audio, ears = noise(21.0), nat.open_neural_ear(both)
    ear = ears.listen()
    assert ears.card["name"] == "mert+wav2vec2"
    rows = [ear.push(audio[at : at + 30000]) for at in range(0, len(audio), 30000)]
    rows = np.concatenate([*rows, ear.flush()])
    assert np.array_equal(rows[:, :32], hear(settings_for(mert), audio))
    assert np.array_equal(rows[:, 32:], hear(settings_for(wav2vec2, "wav2vec2-base"), audio))
    assert [len(native) for _, native in ear.native()] == [21 * 75 - 1, 21 * 50 - 1]


def test_pooling_weighs_by_shared_time() -> None:
    native = np.array([[1.0], [2.0], [4.0]], np.float32)
    rows = nat.pool_frames(native, 0, np.array([-0.5, 0.25, 1.5, 3.25]))
    assert np.allclose(rows[:, 0], [1.0, (0.75 * 1 + 0.5 * 2) / 1.25, (0.5 * 2 + 1.25 * 4) / 1.75])


def test_out_of_memory_halves_the_batch(directory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nat.load_neural_model(nat.MERT, settings_for(directory("mert-95m")))
    wanted, model.batch = model.forward(noise(5.0).reshape(5, -1)), 4
    run = model._run

    def narrow(windows: np.ndarray) -> np.ndarray:
        if len(windows) > 1:
            raise torch.cuda.OutOfMemoryError("simulated")
        return run(windows)

    monkeypatch.setattr(model, "_run", narrow)
    assert np.array_equal(model.forward(noise(5.0).reshape(5, -1)), wanted) and model.batch == 1
    monkeypatch.setattr(model, "_run", lambda windows: narrow(np.zeros((2, 400))))
    with pytest.raises(nat.MissingError, match="--device cpu"):
        model.forward(noise(5.0).reshape(5, -1))


def test_bf16_is_near(directory: Any) -> None:
    settings, audio = settings_for(directory("mert-95m")), noise(3.0)
    exact = hear(settings, audio)
    near = hear(replace(settings, precision="bf16"), audio)
    assert 0 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.05


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_there_is_named(directory: Any, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(nat.MissingError, match=device):
        nat.open_neural_ear(settings_for(directory("mert-95m"), device=device))


def test_no_weights_and_no_network_is_told_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="comes with transformers")
    cache = lambda *args, **named: None  # noqa: E731
    monkeypatch.setattr(hub, "try_to_load_from_cache", cache)
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: time.sleep(60))
    monkeypatch.setattr(nat, "HUB_PATIENCE", 0.3)
    begun = time.monotonic()
    with pytest.raises(nat.MissingError, match="MERT-v1-95M.*no answer"):
        nat.open_neural_ear(nat.Settings(codebook_init="mert"))
    with pytest.raises(nat.MissingError, match="config.json in the local cache"):
        nat.open_neural_ear(nat.Settings(codebook_init="mert", offline=True))
    assert time.monotonic() - begun < 5


def test_a_download_is_announced_with_size_and_licence(
    directory: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub that has what MERT's repository has: config.json and pytorch_model.bin."""
    hub = pytest.importorskip("huggingface_hub", reason="comes with transformers")
    path, asked = directory("mert-95m"), []

    class Head:
        size = 377_600_000

    def head(url: str) -> Any:
        asked.append(url)
        if url.endswith("safetensors"):
            raise hub.utils.EntryNotFoundError(f"404 for {url}")
        return Head

    def download(name: str, filename: str, revision: str) -> str:
        return str(path / filename)

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *args, **named: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", head)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    ears = nat.open_neural_ear(nat.Settings(codebook_init="mert", mert_layer=3, device="cpu"))
    pinned = nat.KNOWN_MODELS["m-a-p/MERT-v1-95M"].revision
    assert ears.identity.startswith(f"mert m-a-p/MERT-v1-95M@{pinned} ")
    assert all(f"/resolve/{pinned}/" in url for url in asked)
    assert "378 MB" in caplog.text and "CC-BY-NC-4.0" in caplog.text


def test_what_is_neither_directory_nor_name_is_told(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="comes with transformers")
    with pytest.raises(nat.MissingError, match="no such directory"):
        nat.open_neural_ear(settings_for(tmp_path / "not" / "there"))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_is_named_before_any_download(package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import neural_audio_tokenizer as nat\n"
        "nat.ModelSource.find = None\n"
        "try: nat.open_neural_ear(nat.Settings(codebook_init='mert'))\n"
        "except nat.MissingError as error: print(error)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(nat.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True
    )  # fmt: skip
    assert done.stdout.startswith(f"{package} is not installed"), done.stderr


BROKEN = {
    "OSError": "raise OSError('libc10_cuda.so: cannot open shared object file')",
    "RuntimeError": "raise RuntimeError('CUDA version mismatch')",
    "ImportError": "from torch import what_is_no_longer_there",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_torchaudio_costs_torchaudio_only(
    directory: Any, tmp_path: Path, kind: str
) -> None:
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text(BROKEN[kind])
    (tmp_path / "torchaudio-9.8.7.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: torchaudio\nVersion: 9.8.7\n"
    (tmp_path / "torchaudio-9.8.7.dist-info" / "METADATA").write_text(metadata)
    program = (
        "import sys, numpy as np, neural_audio_tokenizer as nat;"
        "import logging; logging.basicConfig(stream=sys.stderr);"
        "s = nat.Settings(codebook_init='mert', mert_model=sys.argv[1], mert_layer=3);"
        "ear = nat.open_neural_ear(s).listen();"
        "print(len(ear.push(np.zeros(22050, 'f'))) + len(ear.flush()))"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(nat.__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory("mert-95m"))],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "44\n", done.stderr
    said = [line for line in done.stderr.splitlines() if "torchaudio" in line]
    assert len(said) == 1 and "torchaudio 9.8.7 beside torch " in said[0]


def test_codes_on_a_device_are_the_codes_of_numpy(tokenizer: Any) -> None:
    search, device = nat.TorchNearest(torch.device("cpu")), torch.device("cpu")
    tokens = next(tokenizer.tokens([noise(8.0)]))
    for books, rows in zip(tokenizer.trained, (tokens.semantic, tokens.acoustic)):
        assert (books.encode(rows, nearest=search) == books.encode(rows)).all()
    twins = np.round(np.random.default_rng(1).standard_normal((5, 768)) * 64) / 64
    twins, weights = np.concatenate([twins, twins]), np.ones(768)  # the lower of two wins
    table = nat.search_table(twins, weights)
    search.rows = 3
    assert (search(twins, weights, table=table) == [0, 1, 2, 3, 4] * 2).all()
    assert len(search(twins[:0], weights, table=table)) == 0
    assert device.type == "cpu" and nat.gpu_seams(device) == nat.Seams()


def test_spectra_on_a_device_give_the_codes_of_numpy(tokenizer: Any) -> None:
    torchaudio = pytest.importorskip("torchaudio", reason="TorchPowers needs torchaudio")
    assert torchaudio.functional.spectrogram
    powers, sound = nat.TorchPowers(torch.device("cpu")), noise(9.0)
    plan = nat.Analyzer(RATE, 512)._plan
    piece = sound[: plan.long + 40 * plan.hop].astype(np.float64)
    for there, here in zip(powers(piece, plan), nat.frame_powers(piece, plan)):
        assert there.shape == here.shape and there == pytest.approx(here, rel=1e-9, abs=1e-15)
    spectra = []
    for choice in ({}, {"powers": powers}):
        analyzer = nat.Analyzer(RATE, 512, **choice)
        rows = [analyzer.push(block) for block in np.array_split(sound, 5)] + [analyzer.flush()]
        spectra.append(nat.join_rows(rows))
    features = [nat.acoustic_features(rows) for rows in spectra]
    assert (features[0] == features[1]).mean() > 0.9999


def test_the_float32_route_is_exact() -> None:
    nat.route_float32_to_onednn()
    a, b = torch.randn(700, 768), torch.randn(512, 768)
    exact = a.double() @ b.double().T
    error = (torch.nn.functional.linear(a, b) - exact).norm() / exact.norm()
    assert error < 1e-6


def test_torchaudio_streams_like_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks through TorchaudioStream give what torchaudio gives for the whole."""
    torchaudio = pytest.importorskip("torchaudio", reason="TorchaudioStream needs torchaudio")
    audio = noise(3.3)
    for rate in (24000, 16000):
        stream = nat.TorchaudioStream(RATE, rate, torch.device("cpu"))
        made = [stream.resample_chunk(audio[at : at + RATE]) for at in range(0, 2 * RATE, RATE)]
        made = np.concatenate([*made, stream.resample_chunk(audio[2 * RATE :], last=True)])
        whole = torchaudio.functional.resample(
            torch.from_numpy(audio), RATE, rate, lowpass_filter_width=64, rolloff=0.955
        ).numpy()
        assert len(made) == round(len(audio) * rate / RATE)
        assert np.abs(made - whole[: len(made)]).max() < 1e-5


def test_the_whole_program_hears_through_a_model(run_cli, tmp_path):
    model = tmp_path / "tiny"
    write_model(model, "mert-95m", tiny=True)
    asked = ("--codebook-init", "mert", "--mert-model", model, "--mert-layer", "3", "--quiet")
    out = tmp_path / "out"
    done = run_cli(*asked, "--all-outputs", "--save-features", "--output-dir", out, EXAMPLE)
    assert (done.status, done.err) == (0, "")
    lines = (out / "spouter_tokens.ndjson").read_bytes().splitlines()
    header = json.loads(lines[0])
    assert header["extractor"]["name"] == "mert" and "fallback" not in header["extractor"]
    assert len(lines[0]) < 2000 and header["layers"][1]["reads"] != nat.LAYERS[1].reads
    piped = run_cli(*asked, "-", input=EXAMPLE.read_bytes())
    assert piped.out.splitlines()[1:] == lines[1:]
    with np.load(out / "spouter_features.npz", allow_pickle=False) as features:
        frames = json.loads(lines[-1])["frames"]
        assert len(features["semantic"]) == len(features["acoustic"]) == frames
        assert features["native_rate"] == 75 and len(features["semantic_native"]) == 20 * 75 - 1
    assert "S1 rest of the scene" in (out / "spouter_stream.txt").read_text()
