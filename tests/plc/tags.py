"""The PLC's tags in asyncua's address space.

asyncua leaves a client's value as it came: without a source timestamp, possibly with a bad status or no
value at all. A PLC owns its tags, so each scan samples them once and then shows what the PLC holds. A
value that a client wrote between the two is left alone; the next scan sees it.
"""

from datetime import UTC, datetime
from typing import Any

from asyncua import Node, Server, ua

NAMESPACE = "urn:feedlab:plc"
VALUE = ua.AttributeIds.Value


class Tag:
    """One variable node."""

    def __init__(self, server: Server, node: Node, kind: ua.VariantType, writable: bool) -> None:
        self._aspace = server.iserver.aspace
        self._id = node.nodeid
        self._kind = kind
        self._shown = self._sampled = self._current()
        self.writable = writable

    def _current(self) -> ua.DataValue:
        return self._aspace.read_attribute_value(self._id, VALUE)

    def sample(self) -> Any:
        """The value now in the tag, as this scan will know it; None if there is none."""
        self._sampled = self._current()
        return self._sampled.Value.Value if self._sampled.Value else None

    def sample_written(self) -> Any:
        """As sample, but None unless a client wrote since the PLC last showed something."""
        value = self.sample()
        return None if self._sampled is self._shown else value

    async def show(self, value: Any, *, restamp: bool = False) -> None:
        """Lets the tag hold this value, with the time of the scan, unless a client has just written it."""
        current = self._current()
        if self.writable and current is not self._sampled:
            return
        settled = current is self._shown and current.SourceTimestamp is not None
        if not settled or restamp or current.Value is None or current.Value.Value != value:
            await self.force(value)

    async def force(self, value: Any) -> None:
        """Lets the tag hold this value whatever was there."""
        now = datetime.now(UTC)
        data = ua.DataValue(ua.Variant(value, self._kind), SourceTimestamp=now, ServerTimestamp=now)
        await self._aspace.write_attribute_value(self._id, VALUE, data)
        self._shown = self._sampled = self._current()

    async def write_as_client(self, value: Any) -> None:
        """What a client's value-only write does; the next scan sees it."""
        if not self.writable:
            raise ValueError("read-only")
        number = float(value) if self._kind is ua.VariantType.Double else value
        data = ua.DataValue(ua.Variant(number, self._kind))
        await self._aspace.write_attribute_value(self._id, VALUE, data)


class TagTable:
    """All tags by name, `R01.Cmd`."""

    def __init__(self, server: Server, namespace: int) -> None:
        self._server = server
        self._namespace = namespace
        self.by_name: dict[str, Tag] = {}

    async def add(self, owner: str, tags: dict[str, tuple[ua.VariantType, Any, bool]]) -> dict[str, Tag]:
        """Makes an object with variables; each is (type, first value, writable)."""
        ns = self._namespace
        parent = await self._server.nodes.objects.add_object(ua.NodeId(owner, ns), ua.QualifiedName(owner, ns))
        made = {}
        for name, (kind, value, writable) in tags.items():
            full = f"{owner}.{name}"
            node = await parent.add_variable(ua.NodeId(full, ns), ua.QualifiedName(name, ns), value, varianttype=kind)
            if writable:
                await node.set_writable()
            made[name] = self.by_name[full] = Tag(self._server, node, kind, writable)
        return made
