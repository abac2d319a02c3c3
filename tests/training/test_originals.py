"""Arrays of other frameworks' files come back as they were, nothing in a file is run, and none is taken for another."""

import ast
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from itertools import takewhile
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.io import savemat

from jfusion.errors import InputError
from jfusion.layers import layouts
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.training import crc32c, originals
from jfusion.training.originals import read_arrays
from jfusion.training.originals.assign import load_original

RNG = np.random.default_rng(3)
KERNEL = RNG.standard_normal((3, 2, 4, 5)).astype(np.float32)
BIAS = RNG.standard_normal(5).astype(np.float32)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


# ----------------------------------------------------------------------------------------------------------------------
# Files of torch.save, without torch


class Global:
    """A name that the pickle asks for."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self) -> None: ...


class Storage:
    def __init__(self, key: str, kind: str, numbers: np.ndarray) -> None:
        self.key, self.kind, self.numbers = key, kind, numbers


class Tensor:
    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple) -> None:
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple:
        return Global("torch._utils", "_rebuild_tensor_v2"), self.arguments


class Parameter(Tensor):
    def __reduce__(self) -> tuple:
        return Global("torch._utils", "_rebuild_parameter"), (Tensor(*self.arguments[:4]), True, OrderedDict())


class Pickler(pickle._Pickler):
    def __init__(self, file: io.BytesIO, legacy: bool) -> None:
        super().__init__(file, 2)
        self.legacy, self.storages = legacy, {}

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj: object) -> tuple | None:
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj.numbers
        view = (None,) if self.legacy else ()
        return ("storage", Global("torch", obj.kind), obj.key, "cpu", len(obj.numbers), *view)


def pickled(obj: object, legacy: bool) -> tuple[bytes, dict[str, np.ndarray]]:
    file = io.BytesIO()
    pickler = Pickler(file, legacy)
    pickler.dump(obj)
    return file.getvalue(), pickler.storages


def write_zip(path: Path, content: bytes, storages: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
        for key, numbers in storages.items():
            archive.writestr(f"net/data/{key}", numbers.tobytes())


def write_legacy(path: Path, content: bytes, storages: dict[str, np.ndarray]) -> None:
    start = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    data = b"".join(struct.pack("<q", len(n)) + n.tobytes() for n in storages.values())
    path.write_bytes(b"".join(pickle.dumps(o, 2) for o in start) + content + pickle.dumps(list(storages), 2) + data)


WRITERS = {"zip": write_zip, "legacy": write_legacy}


def write_torch(path: Path, form: str, obj: object) -> None:
    WRITERS[form](path, *pickled(obj, form == "legacy"))


def checkpoint() -> tuple[dict, dict[str, np.ndarray]]:
    """An object with strided, shared, nested and empty tensors and much else, and the arrays in it."""
    numbers = np.arange(12, dtype=np.float32)
    shared, whole = Storage("0", "FloatStorage", numbers), Storage("1", "LongStorage", np.array([7, -8, 9]))
    upper = Storage("2", "BFloat16Storage", np.array([0x3F80, 0xC000], np.uint16))
    half = Storage("3", "HalfStorage", np.array([0.5, 2], np.float16))
    flags = Storage("4", "BoolStorage", np.array([True, False]))
    state = OrderedDict(
        turned=Parameter(shared, 2, (3, 2), (1, 5)), row=Tensor(shared, 4, (4,), (1,)), one=Tensor(whole, 1, (), ())
    )
    obj = {
        "state_dict": state,
        "optimizer": {"state": {0: {"average": Tensor(upper, 0, (2,), (1,))}}, "groups": [{"lr": 1e-3}]},
        "more": [1, Tensor(half, 0, (2, 3), (1, 0)), (Tensor(flags, 0, (2,), (1,)), Tensor(half, 2, (0, 4), (4, 1)))],
        "epoch": 3,
        "name": "net",
    }
    return obj, {
        "state_dict/turned": np.array([[2, 7], [3, 8], [4, 9]], np.float32),
        "state_dict/row": np.array([4, 5, 6, 7], np.float32),
        "state_dict/one": np.array(-8),
        "optimizer/state/0/average": np.array([1, -2], np.float32),
        "more/1": np.array([[0.5] * 3, [2] * 3], np.float16),
        "more/2/0": np.array([True, False]),
        "more/2/1": np.zeros((0, 4), np.float16),
    }


@pytest.mark.parametrize("form", WRITERS)
def test_torch_tensors_by_their_keys(tmp_path, form: str) -> None:
    obj, expected = checkpoint()
    write_torch(tmp_path / "net", form, obj)
    assert_same(read_arrays(tmp_path / "net"), expected)


def test_legacy_view_of_a_storage(tmp_path) -> None:
    class Viewing(Pickler):
        def persistent_id(self, obj: object) -> tuple | None:
            pid = super().persistent_id(obj)
            return pid and (*pid[:-1], ("view", 2, 3))

    file = io.BytesIO()
    pickler = Viewing(file, legacy=True)
    pickler.dump({"a": Tensor(Storage("0", "FloatStorage", np.arange(6, dtype=np.float32)), 1, (2,), (1,))})
    write_legacy(tmp_path / "net", file.getvalue(), pickler.storages)
    np.testing.assert_array_equal(read_arrays(tmp_path / "net")["a"], [3, 4])


def test_zip_of_a_big_endian_machine(tmp_path) -> None:
    content, _ = pickled({"a": Tensor(Storage("0", "IntStorage", np.array([5])), 0, (1,), (1,))}, legacy=False)
    write_zip(tmp_path / "net", content, {"0": np.array([5], ">i4")})
    with zipfile.ZipFile(tmp_path / "net", "a") as archive:
        archive.writestr("net/byteorder", "big")
    np.testing.assert_array_equal(read_arrays(tmp_path / "net")["a"], [5])


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_pickle_is_run(tmp_path, form: str, protocol: int) -> None:
    class Malice:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'trace'}",)

    WRITERS[form](tmp_path / "net", pickle.dumps({"a": Malice()}, protocol), {})
    with pytest.raises(InputError, match=r"asks for \w+\.system, which is refused.*state_dict"):
        read_arrays(tmp_path / "net")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "geometry", [(0, (7,), (1,)), (6, (1,), (1,)), (-1, (1,), (1,)), (5, (2,), (-1,)), (0, (2,), ())]
)
def test_a_tensor_stays_within_its_storage(tmp_path, form: str, geometry: tuple) -> None:
    write_torch(tmp_path / "net", form, {"a": Tensor(Storage("0", "FloatStorage", BIAS.repeat(2)[:6]), *geometry)})
    with pytest.raises(InputError, match="damaged"):
        read_arrays(tmp_path / "net")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_itself(tmp_path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2))
    base = torch.arange(24.0)
    tensors = {
        "shared": base[3:7],
        "turned": base.reshape(2, 3, 4).permute(2, 0, 1)[1:],
        "parameter": torch.nn.Parameter(base[::5]),
        "bfloat16": base.bfloat16(),
        "half": base.half(),
        "bytes": base.byte(),
        "complex": base + 1j,
    }
    obj = {"net": net.state_dict(), "tensors": tensors, "epoch": 3}
    torch.save(obj, tmp_path / "net", _use_new_zipfile_serialization=zipped)
    found = read_arrays(tmp_path / "net")
    expected = {f"net/{name}": tensor for name, tensor in net.state_dict().items()}
    expected |= {f"tensors/{name}": tensor for name, tensor in tensors.items()}
    values = {name: tensor.detach() for name, tensor in expected.items()}
    assert_same(found, {n: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for n, v in values.items()})
    torch.save(net, tmp_path / "whole", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"asks for torch\.nn.*save its state_dict"):
        read_arrays(tmp_path / "whole")


# ----------------------------------------------------------------------------------------------------------------------
# Keras and MatConvNet


def write_keras(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["model_weights/conv/conv/kernel:0"] = KERNEL
        file["model_weights/conv/conv/bias:0"] = BIAS
        file["optimizer_weights/iterations:0"] = 3
        file["names"] = ["conv"]


def test_keras_arrays_by_their_paths(tmp_path) -> None:
    write_keras(tmp_path / "net")
    assert_same(
        read_arrays(tmp_path / "net"),
        {
            "model_weights/conv/conv/kernel:0": KERNEL,
            "model_weights/conv/conv/bias:0": BIAS,
            "optimizer_weights/iterations:0": np.array(3),
        },
    )


def cell(*values: object) -> np.ndarray:
    array = np.empty((1, len(values)), object)
    array[0] = [*values]
    return array


def write_simple(path: Path) -> None:
    conv = {"type": "conv", "weights": cell(KERNEL, BIAS[None]), "stride": 1.0}
    savemat(path, {"net": {"layers": cell(conv, {"type": "relu", "weights": cell()}, conv)}}, do_compression=True)


def write_dag(path: Path) -> None:
    params = np.zeros((1, 2), [("name", object), ("value", object)])
    params["name"], params["value"] = [["f", "b"]], cell(KERNEL, BIAS[None])
    savemat(path, {"net": {"layers": {"name": "conv"}, "params": params}})


class V73:
    """A version 7.3 file, as MATLAB writes it: cells and struct arrays are references to what lies in #refs#."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "V73":
        self.file = h5py.File(self.path, "w", userblock_size=512)
        self.net = self.file.create_group("net")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        with self.path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")

    def hidden(self) -> str:
        return f"#refs#/{len(self.file.require_group('#refs#'))}"

    def put(self, name: str, value: np.ndarray | str) -> h5py.Dataset:
        text = isinstance(value, str)
        self.file[name] = np.array([[ord(c)] for c in value], np.uint16) if text else np.asarray(value).T
        self.file[name].attrs["MATLAB_class"] = np.bytes_("char" if text else "single")
        return self.file[name]

    def refer(self, name: str, items: list[h5py.HLObject], *, is_cell: bool) -> h5py.Dataset:
        self.file.create_dataset(name, data=[[item.ref] for item in items], dtype=h5py.ref_dtype)
        if is_cell:
            self.file[name].attrs["MATLAB_class"] = np.bytes_("cell")
        return self.file[name]


def write_simple_v73(path: Path) -> None:
    with V73(path) as mat:
        layers = []
        for weighty in (True, False, True):
            layer = mat.file.create_group(mat.hidden())
            mat.put(f"{layer.name}/type", "conv" if weighty else "relu")
            if weighty:
                weights = [mat.put(mat.hidden(), KERNEL), mat.put(mat.hidden(), BIAS[None])]
                mat.refer(f"{layer.name}/weights", weights, is_cell=True)
            else:
                mat.file[f"{layer.name}/weights"] = np.zeros(2, np.uint64)
                mat.file[f"{layer.name}/weights"].attrs.update(MATLAB_class=np.bytes_("cell"), MATLAB_empty=np.uint8(1))
            layers.append(layer)
        mat.refer("net/layers", layers, is_cell=True)


def write_dag_v73(path: Path) -> None:
    with V73(path) as mat:
        mat.refer("net/params/name", [mat.put(mat.hidden(), name) for name in "fb"], is_cell=False)
        mat.refer("net/params/value", [mat.put(mat.hidden(), value) for value in (KERNEL, BIAS[None])], is_cell=False)


@pytest.mark.parametrize("write", [write_simple, write_simple_v73])
def test_matconvnet_layers_by_place(tmp_path, write) -> None:
    write(tmp_path / "net.mat")
    expected = {f"layers/{k}/weights/{j}": (KERNEL, BIAS[None])[j] for k in (0, 2) for j in (0, 1)}
    assert_same(read_arrays(tmp_path / "net.mat"), expected)


@pytest.mark.parametrize("write", [write_dag, write_dag_v73])
def test_matconvnet_parameters_by_name(tmp_path, write) -> None:
    write(tmp_path / "net.mat")
    assert_same(read_arrays(tmp_path / "net.mat"), {"f": KERNEL, "b": BIAS[None]})


def test_matlab_file_without_network(tmp_path) -> None:
    savemat(tmp_path / "image.mat", {"image": KERNEL})
    with pytest.raises(InputError, match="no network of MatConvNet"):
        read_arrays(tmp_path / "image.mat")


# ----------------------------------------------------------------------------------------------------------------------
# TensorFlow


def masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(kind: int, shape: tuple, shard: int, offset: int, data: bytes, more: bytes = b"") -> bytes:
    sizes = b"".join(field(2, field(1, n)) for n in shape)
    place = field(3, shard) + field(4, offset) + field(5, len(data))
    return field(1, kind) + field(2, sizes) + place + varint(6 << 3 | 5) + struct.pack("<I", masked(data)) + more


def block(items: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    content, last = b"", b""
    for key, value in items:
        shared = len([*takewhile(lambda pair: pair[0] == pair[1], zip(key, last, strict=False))])
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    content += struct.pack("<II", 0, 1) + bytes([compression])
    return content + struct.pack("<I", masked(content))


def table(items: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    content, handles = b"", []
    for two in (items[i : i + 2] for i in range(0, len(items), 2)):
        data = block(two, compression)
        handles.append((two[-1][0], varint(len(content)) + varint(len(data) - 5)))
        content += data
    footer = b""
    for data in (block([]), block(handles)):
        footer += varint(len(content)) + varint(len(data) - 5)
        content += data
    return content + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(prefix: Path, more: bytes = b"", compression: int = 0) -> dict[str, np.ndarray]:
    arrays = {"net/conv/bias": BIAS, "net/conv/kernel": KERNEL, "net/step": np.array(300)}
    shards, items = [b"", b"text"], [(b"", field(1, 2))]
    for (name, array), shard, kind in zip(arrays.items(), (1, 0, 1), (1, 1, 9), strict=True):
        data = array.tobytes()
        items.append((name.encode(), entry(kind, array.shape, shard, len(shards[shard]), data, more)))
        shards[shard] += data
    items.append((b"text", entry(7, (), 1, 0, b"text")))
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(items, compression))
    for k, data in enumerate(shards):
        prefix.with_name(f"{prefix.name}.data-0000{k}-of-00002").write_bytes(data)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00001-of-00002"])
def test_tensorflow_variables_by_name(tmp_path, suffix: str) -> None:
    arrays = write_bundle(tmp_path / "net.ckpt")
    assert_same(read_arrays(tmp_path / f"net.ckpt{suffix}"), arrays)


def test_tensorflow_shard_that_is_missing_or_changed(tmp_path) -> None:
    write_bundle(tmp_path / "net")
    shard = tmp_path / "net.data-00000-of-00002"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        read_arrays(tmp_path / "net")
    shard.unlink()
    with pytest.raises(InputError, match="needs the shard"):
        read_arrays(tmp_path / "net")
    (tmp_path / "net.index").unlink()
    with pytest.raises(InputError, match="no index"):
        read_arrays(tmp_path / "net.data-00001-of-00002")


def test_tensorflow_refusals(tmp_path) -> None:
    write_bundle(tmp_path / "sliced", more=field(7, b""))
    with pytest.raises(InputError, match=r"in slices.*partitioner"):
        read_arrays(tmp_path / "sliced")
    write_bundle(tmp_path / "compressed", compression=1)
    with pytest.raises(InputError, match="Snappy"):
        read_arrays(tmp_path / "compressed")


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 31, 257])
def test_checksum(size: int) -> None:
    data = RNG.bytes(size)
    assert crc32c.masked(data) == masked(data)


# ----------------------------------------------------------------------------------------------------------------------
# All formats


def write_all(folder: Path) -> list[Path]:
    """A file of every format, and the paths of those that are cut."""
    obj, _ = checkpoint()
    for form in WRITERS:
        write_torch(folder / form, form, obj)
    write_keras(folder / "keras")
    for write in (write_simple, write_dag, write_simple_v73, write_dag_v73):
        write(folder / write.__name__)
    write_bundle(folder / "net")
    return sorted(folder.iterdir())


def test_files_cut_anywhere_are_refused(tmp_path) -> None:
    for path in write_all(tmp_path):
        content = path.read_bytes()
        assert read_arrays(path)
        for size in {*range(0, len(content), max(1, len(content) // 30)), len(content) - 1}:
            path.write_bytes(content[:size])
            with pytest.raises(InputError):
                read_arrays(path)
        path.write_bytes(content)


def test_what_is_no_checkpoint(tmp_path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        read_arrays(tmp_path / "missing")
    with pytest.raises(InputError, match="is a folder"):
        read_arrays(tmp_path)
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("readme", "no network")
    with pytest.raises(InputError, match=r"not one of torch\.save"):
        read_arrays(tmp_path / "archive.pth")
    for content in (b"", b"text", pickle.dumps({"a": 1})):
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"expected a file of torch\.save"):
            read_arrays(tmp_path / "net.pth")
    write_torch(tmp_path / "net.pth", "zip", {"epoch": 3})
    with pytest.raises(InputError, match="no array of weights"):
        read_arrays(tmp_path / "net.pth")


def test_no_other_framework_is_imported() -> None:
    for path in Path(originals.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torch", "tensorflow", "keras"}


# ----------------------------------------------------------------------------------------------------------------------
# Into a module


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = Conv(2, 3, (3, 2), padding="valid", rngs=rngs)
        self.up = ConvTranspose(3, 2, (4, 3), strides=2, padding="valid", rngs=rngs)
        self.norm = nnx.BatchNorm(2, epsilon=1e-5, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.linear = nnx.Linear(2, 4, rngs=rngs)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.linear(self.drop(self.norm(self.up(self.conv(jnp.asarray(x))))))


TORCH = {
    "conv/kernel": ("0.weight", layouts.torch_kernel),
    "conv/bias": ("0.bias", layouts.as_is),
    "up/kernel": ("1.weight", layouts.torch_transposed_kernel),
    "up/bias": ("1.bias", layouts.as_is),
    "norm/scale": ("2.weight", layouts.as_is),
    "norm/bias": ("2.bias", layouts.as_is),
    "norm/mean": ("2.running_mean", layouts.as_is),
    "norm/var": ("2.running_var", layouts.as_is),
    "linear/kernel": ("3.weight", layouts.torch_kernel),
    "linear/bias": ("3.bias", layouts.as_is),
}


def test_a_module_with_the_original_computes_what_torch_does() -> None:
    torch = pytest.importorskip("torch")
    layers = [
        torch.nn.Conv2d(2, 3, (3, 2)),
        torch.nn.ConvTranspose2d(3, 2, (4, 3), 2),
        torch.nn.BatchNorm2d(2),
        torch.nn.Linear(2, 4),
    ]
    original = torch.nn.Sequential(*layers).eval()
    torch.nn.init.normal_(layers[2].running_mean)
    arrays = {n: t.numpy() for n, t in original.state_dict().items() if not n.endswith("num_batches_tracked")}
    module = Net(nnx.Rngs(0))
    load_original(module, arrays, TORCH)
    x = RNG.standard_normal((1, 6, 5, 2)).astype(np.float32)
    with torch.no_grad():
        y = layers[2](layers[1](layers[0](torch.from_numpy(x).permute(0, 3, 1, 2))))
        expected = layers[3](y.permute(0, 2, 3, 1)).numpy()
    np.testing.assert_allclose(module(x), expected, rtol=1e-4, atol=1e-5)


def test_all_that_does_not_fit_is_listed_and_nothing_is_set() -> None:
    module = nnx.Linear(2, 4, rngs=nnx.Rngs(0))
    before = np.asarray(module.kernel[...])
    entries = {"kernel": ("w", layouts.torch_kernel), "bias": ("b", layouts.as_is)}
    arrays = {"w": np.ones((4, 2)), "b": np.ones(4)}
    cases = [
        (arrays, {"kernel": entries["kernel"]}, r"missing: bias; left over: b\b"),
        ({"w": arrays["w"]}, entries, r"missing: b\b"),
        ({**arrays, "step": np.ones(1)}, entries, "left over: step"),
        (arrays, {**entries, "slope": entries["bias"]}, "left over: slope"),
        ({**arrays, "w": np.ones((2, 4))}, entries, r"of another shape: kernel \(2, 4\) from w \(2, 4\)"),
        ({**arrays, "w": np.ones(8)}, entries, r"of another shape: kernel \(2, 4\) from w \(8,\)"),
    ]
    for given, names, message in cases:
        with pytest.raises(InputError, match=message):
            load_original(module, given, names)
    np.testing.assert_array_equal(module.kernel[...], before)
    load_original(module, arrays, entries)
    np.testing.assert_array_equal(module.kernel[...], np.ones((2, 4), np.float32))
    assert module.kernel[...].dtype == np.float32


def test_a_parameter_in_parts() -> None:
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    entries = {f"bias/{k}": (f"b{k}", layouts.as_is) for k in range(3)} | {"kernel": ("w", layouts.torch_kernel)}
    arrays = {f"b{k}": np.full(1, k, np.float32) for k in range(3)} | {"w": np.ones((3, 2))}
    load_original(module, arrays, entries)
    np.testing.assert_array_equal(module.bias[...], [0, 1, 2])
    two = {place: entry for place, entry in entries.items() if place != "bias/1"}
    cases = [
        ({**arrays, "b3": np.ones(1)}, {**entries, "bias/3": ("b3", layouts.as_is)}, r"of another shape: bias \(3,\)"),
        ({**arrays, "b1": np.ones(())}, entries, r"bias \(3,\) from b0 \(1,\) and b1 \(\) and b2 \(1,\)"),
        ({name: array for name, array in arrays.items() if name != "b1"}, entries, r"missing: b1\)"),
        (arrays, two, r"left over: bias/2, b1; of another shape: bias \(3,\) from b0 \(1,\)"),
    ]
    for given, names, message in cases:
        with pytest.raises(InputError, match=message):
            load_original(module, given, names)


def test_parameters_and_moments_are_wanted_and_no_random_state() -> None:
    with pytest.raises(InputError, match=r"\(missing: 0.bias, (\d\.\w+, ){8}3.weight\)"):
        load_original(Net(nnx.Rngs(0)), {}, TORCH)


def test_layouts() -> None:
    turned = np.arange(120).reshape(4, 5, 3, 2)
    assert layouts.torch_kernel(turned)[2, 1, 4, 3] == turned[3, 4, 2, 1]
    assert layouts.torch_kernel(turned[..., 0, 0])[4, 3] == turned[3, 4, 0, 0]
    assert layouts.torch_transposed_kernel(turned)[2, 1, 3, 4] == turned[3, 4, 2, 1]
    assert layouts.matlab_kernel(KERNEL[..., 0]).shape == (3, 2, 4, 1)
    assert layouts.matlab_kernel(KERNEL).shape == KERNEL.shape
    np.testing.assert_array_equal(layouts.matlab_vector(BIAS[:, None]), BIAS)
    np.testing.assert_array_equal(layouts.tensorflow_transposed_kernel(KERNEL)[1, 1, 2, 3], KERNEL[1, 1, 3, 2])
    assert layouts.tensorflow_depthwise_kernel(KERNEL[..., :1]).shape == (3, 2, 1, 4)
    np.testing.assert_array_equal(layouts.tensorflow_pointwise_matrix(KERNEL[:1, :1]), KERNEL[0, 0])
