"""A browser without pictures: speaks viser's protocol over a web socket, and keeps what the page would show."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import viser
import websockets.sync.client
import zstandard


class Browser:
    """Connects to a server of viser.

    Attributes:
        gui: the controls, by their ids, as dicts with ``type``, ``label``, ``content``, ``value``, ...
        nodes: properties of the nodes of the scene, by name.
        backgrounds: the bytes of each background image, in their order.
        camera: the position, rotation (wxyz) and target that the server has asked for last.
    """

    def __init__(self, port: int, *, position: tuple[float, float, float] = (0.0, 0.0, -5.0)) -> None:
        self.gui: dict[str, dict[str, Any]] = {}
        self.commands: dict[str, str] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.backgrounds: list[bytes] = []
        self.camera: dict[str, Any] = {}
        self._socket = websockets.sync.client.connect(
            f"ws://127.0.0.1:{port}", subprotocols=[f"viser-v{viser.__version__}"], max_size=None
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.move(position)

    def close(self) -> None:
        self._socket.close()
        self._reader.join()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def move(self, position: tuple[float, float, float], wxyz: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)) -> None:
        """Report a camera that looks along z, or as ``wxyz`` says."""
        self._send(
            "ViewerCameraMessage",
            **{"wxyz": wxyz, "position": position, "fov": 0.8, "near": 0.01, "far": 100.0},
            **{"image_height": 300, "image_width": 400, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, -1.0, 0.0)},
        )

    def control(self, label: str) -> dict[str, Any]:
        """The control with a label, once it is there."""
        return self.wait_for(lambda: next((each for each in self.gui.values() if each.get("label") == label), None))

    def choose(self, label: str, value: Any) -> None:
        """Give a control a value."""
        control = self.control(label)
        control["value"] = value
        self._send("GuiUpdateMessage", uuid=control["uuid"], updates={"value": value})

    def press(self, key: str) -> None:
        """Press a key that the page has bound."""
        self._send("CommandTriggerMessage", uuid=self.wait_for(lambda: self.commands.get(key)))

    def click(self, node: str) -> None:
        self._send(
            "SceneNodeClickMessage",
            **{"name": node, "instance_index": None, "ray_origin": (0.0, 0.0, 0.0), "ray_direction": (0.0, 0.0, 1.0)},
            **{"screen_pos": (0.5, 0.5), "modifier": None, "owner": self.nodes[node].get("owner", "")},
        )

    def says(self, text: str) -> bool:
        """Whether a visible part of the panel contains a text."""
        shown = (each for each in self.gui.values() if each.get("visible", True))
        return any(text in str(each.get(part, "")) for each in shown for part in ("_markdown", "content", "label"))

    def colors(self) -> np.ndarray:
        """The colors of the Gaussians, uint8 ``[N, 3]``."""
        buffer = self.wait_for(lambda: self.nodes.get("/splat", {}).get("buffer"))
        return buffer.reshape(-1, 8)[:, 7:8].copy().view(np.uint8)[:, :3]

    def wait_for(self, find: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait for a value that is neither None nor false."""
        end = time.monotonic() + seconds
        while (found := find()) is None or (isinstance(found, bool | np.bool_) and not found):
            assert time.monotonic() < end, "the page does not show it"
            time.sleep(0.01)
        return found

    def _send(self, kind: str, **fields: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def _read(self) -> None:
        with suppress(websockets.exceptions.ConnectionClosed):
            for data in self._socket:
                assert isinstance(data, bytes)
                for message in _decode(data):
                    self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        kind, props = message["type"], message.get("props", {})
        if kind == "RegisterCommandMessage":
            self.commands[props["hotkey"]] = message["uuid"]
        elif kind == "GuiUpdateMessage":
            self.gui[message["uuid"]] |= message["updates"]
        elif kind.startswith("Gui") and "uuid" in message:
            self.gui[message["uuid"]] = {**message, **props}
        elif kind == "SceneNodeUpdateMessage":
            self.nodes[message["name"]] |= message["updates"]
        elif kind == "SetSceneNodeVisibilityMessage":
            self.nodes[message["name"]]["visible"] = message["visible"]
        elif kind == "BackgroundImageMessage":
            self.backgrounds.append(bytes(message["rgb_data"] or b""))
        elif kind.startswith("SetCamera"):
            self.camera |= message
        elif "name" in message and props:
            self.nodes[message["name"]] = {**message, **props}


def _decode(data: bytes) -> list[dict[str, Any]]:
    """Decode a window of messages; arrays are appended to the compressed part, each at a multiple of 8 bytes."""
    size = int.from_bytes(data[8:16], "little")
    inner = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + size]))
    arrays, at = [], 16 + size
    for length in inner["binaryBufferLengths"]:
        at = -(-at // 8) * 8
        arrays.append(data[at : at + length])
        at += length

    def fill(value: Any) -> Any:
        if isinstance(value, dict) and "__binary_index" in value:
            return np.frombuffer(arrays[value["__binary_index"]], value["dtype"])
        if isinstance(value, dict):
            return {key: fill(each) for key, each in value.items()}
        return [fill(each) for each in value] if isinstance(value, list) else value

    return [fill(message) for message in inner["messages"]]
