"""Models of any size: little of them in memory, and room on the disk before they are fetched."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelops_operator.adapters.image_folder import ImageFolder
from modelops_operator.adapters.oci import Blob
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import BuildError, broken
from modelops_operator.builder.layers import Entry, write_layer
from modelops_operator.builder.models import fetch
from modelops_operator.builder.scratch import Room
from modelops_runtime import flavor

from tests.registries.servers import RunningRegistry

pytestmark = [pytest.mark.contract, pytest.mark.anyio]
SIZE = 32 * 1024 * 1024
GB = 10**9


async def test_no_step_holds_a_whole_file_in_memory(
    mlflow: Any, registry: RunningRegistry, tmp_path: Path
) -> None:
    place = tmp_path / "in"
    files = {flavor.SCHEMA: b"{}", flavor.PARITY: b"{}", flavor.TREELITE: os.urandom(SIZE)}
    settings = flavor.write_data(place, "predictor", "treelite", files)
    described = {flavor.FLAVOR: settings, "python_function": {}}
    description = {"MLmodel": yaml.safe_dump({"flavors": described}).encode()}
    model = mlflow.register("large", description, place)
    folder = tmp_path / "out"
    folder.mkdir()

    tracemalloc.start()
    try:
        fetched = await fetch(model, mlflow.uri, folder)
        entries = [Entry.from_file(name, path) for name, path in fetched.files().items()]
        layer, blob = write_layer(entries, tmp_path / "layer", content="large")
        async with registry.connect() as client:
            await client.push("large/model", blob)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layer.size > SIZE
    assert peak < SIZE / 2


async def test_a_folder_for_images_takes_what_is_being_written(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "images")
    path = tmp_path / "layer"

    async def write() -> Blob:
        return write_layer([Entry.of("a", b"1")], path, content="small")[1]

    blob = await folder.push_growing("m", path, write())
    assert await folder.has_blob("m", blob.digest)
    assert await folder.tags("m") == []
    await folder.put_manifest("m", "1-abc", b"{}")
    assert await folder.tags("m") == ["1-abc"]


async def test_a_models_bytes_are_told_before_any_is_fetched(mlflow: Any, tmp_path: Path) -> None:
    files = {"MLmodel": b"flavors: {}", "data/weights.bin": bytes(1000), "a": bytes(20)}
    model = mlflow.register("sized", files, tmp_path / "in")
    (tmp_path / "out").mkdir()
    told = []

    def refuse(title: str, size: int) -> None:
        told.append((title, size))
        raise broken(Reason.BUILD_FAILED, "no room")

    with pytest.raises(BuildError, match="no room"):
        await fetch(model, mlflow.uri, tmp_path / "out", claim=refuse)
    assert told == [("model sized version 1", sum(map(len, files.values())))]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_never_fits_is_refused_with_the_way_out() -> None:
    with (
        Room(5 * GB).share() as share,
        pytest.raises(
            BuildError, match=r"model m has 3\.0 GB: .* 6\.5 GB .* `builder\.scratch`"
        ) as it,
    ):
        share.claim("model m", 3 * GB)
    assert it.value.failure.permanent


def test_a_model_waits_for_the_room_of_others() -> None:
    room = Room(5 * GB)
    with room.share() as first, room.share() as second:
        first.claim("model m", 2 * GB)
        with pytest.raises(BuildError, match="other builds leave no room") as caught:
            second.claim("model n", 1 * GB)
        assert not caught.value.failure.permanent
    with room.share() as third:
        third.claim("model n", 1 * GB)
        third.claim("model o", 1 * GB)


def test_the_room_is_never_more_than_the_disk_has() -> None:
    with Room(10**18).share() as share, pytest.raises(BuildError, match="raise `builder"):
        share.claim("model m", 10**18)
