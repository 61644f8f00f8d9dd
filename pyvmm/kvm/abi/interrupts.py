"""Interrupt controllers, the timer that goes with them, routing, MSI, irqfd and ioeventfd."""

from ctypes import Array, c_uint8, c_uint32
from typing import TYPE_CHECKING, Annotated, ClassVar

from pyvmm.kvm.abi.base import FlexibleStruct, Struct, Union, layout, s32, s64, u8, u16, u32, u64

KVM_IOAPIC_NUM_PINS = 24

KVM_IRQCHIP_PIC_MASTER = 0
KVM_IRQCHIP_PIC_SLAVE = 1
KVM_IRQCHIP_IOAPIC = 2
KVM_NR_IRQCHIPS = 3

KVM_PIT_SPEAKER_DUMMY = 1
KVM_PIT_FLAGS_HPET_LEGACY = 0x00000001
KVM_PIT_FLAGS_SPEAKER_DATA_ON = 0x00000002

KVM_IRQ_ROUTING_IRQCHIP = 1
KVM_IRQ_ROUTING_MSI = 2
KVM_IRQ_ROUTING_S390_ADAPTER = 3
KVM_IRQ_ROUTING_HV_SINT = 4
KVM_IRQ_ROUTING_XEN_EVTCHN = 5

KVM_MSI_VALID_DEVID = 1 << 0

KVM_IRQFD_FLAG_DEASSIGN = 1 << 0
KVM_IRQFD_FLAG_RESAMPLE = 1 << 1

KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0
KVM_IOEVENTFD_FLAG_PIO = 1 << 1
KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2
KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 1 << 3

KVM_X2APIC_API_USE_32BIT_IDS = 1 << 0
KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 1 << 1


@layout
class IrqOrStatus(Union):
    """The line on the way in, what became of the interrupt on the way out."""

    __slots__ = ()
    irq: u32
    status: s32


@layout
class KvmIrqLevel(Struct):
    """The level of an interrupt line, KVM_IRQ_LINE and KVM_IRQ_LINE_STATUS."""

    __slots__ = ()
    _anonymous_ = ("line",)
    line: IrqOrStatus
    level: u32
    if TYPE_CHECKING:
        irq: int
        status: int


@layout
class KvmPicState(Struct):
    """An 8259A interrupt controller."""

    __slots__ = ()
    last_irr: u8
    irr: u8
    imr: u8
    isr: u8
    priority_add: u8
    irq_base: u8
    read_reg_select: u8
    poll: u8
    special_mask: u8
    init_state: u8
    auto_eoi: u8
    rotate_on_auto_eoi: u8
    special_fully_nested_mode: u8
    init4: u8
    elcr: u8
    elcr_mask: u8


@layout
class RedirectionFields(Struct):
    """An entry of the IOAPIC's redirection table, bit by bit."""

    __slots__ = ()
    vector: u8
    delivery_mode: Annotated[int, c_uint8, 3]
    dest_mode: Annotated[int, c_uint8, 1]
    delivery_status: Annotated[int, c_uint8, 1]
    polarity: Annotated[int, c_uint8, 1]
    remote_irr: Annotated[int, c_uint8, 1]
    trig_mode: Annotated[int, c_uint8, 1]
    mask: Annotated[int, c_uint8, 1]
    reserve: Annotated[int, c_uint8, 7]
    reserved: Annotated[Array[c_uint8], c_uint8 * 4]
    dest_id: u8


@layout
class Redirection(Union):
    """An entry of the IOAPIC's redirection table."""

    __slots__ = ()
    bits: u64
    fields: RedirectionFields


@layout
class KvmIoapicState(Struct):
    """The IOAPIC."""

    __slots__ = ()
    base_address: u64
    ioregsel: u32
    id: u32
    irr: u32
    pad: u32
    redirtbl: Annotated[Array[Redirection], Redirection * KVM_IOAPIC_NUM_PINS]


@layout
class Chip(Union):
    """What ``kvm_irqchip.chip_id`` selects."""

    __slots__ = ()
    dummy: Annotated[Array[c_uint8], c_uint8 * 512]
    pic: KvmPicState
    ioapic: KvmIoapicState


@layout
class KvmIrqchip(Struct):
    """One of the interrupt controllers in the kernel, KVM_GET_IRQCHIP and KVM_SET_IRQCHIP."""

    __slots__ = ()
    chip_id: u32
    pad: u32
    chip: Chip

    def __repr__(self) -> str:
        chip = self.chip.ioapic if self.chip_id == KVM_IRQCHIP_IOAPIC else self.chip.pic
        return f"KvmIrqchip(chip_id={self.chip_id}, {chip!r})"


@layout
class KvmPitConfig(Struct):
    """How the timer is made, KVM_CREATE_PIT2."""

    __slots__ = ()
    flags: u32
    pad: Annotated[Array[c_uint32], c_uint32 * 15]


@layout
class KvmPitChannelState(Struct):
    """A channel of the 8254 timer; ``count_load_time`` is in nanoseconds of the host's monotonic clock."""

    __slots__ = ()
    count: u32
    latched_count: u16
    count_latched: u8
    status_latched: u8
    status: u8
    read_state: u8
    write_state: u8
    write_latch: u8
    rw_mode: u8
    mode: u8
    bcd: u8
    gate: u8
    count_load_time: s64


@layout
class KvmPitState2(Struct):
    """The 8254 timer, KVM_GET_PIT2 and KVM_SET_PIT2."""

    __slots__ = ()
    channels: Annotated[Array[KvmPitChannelState], KvmPitChannelState * 3]
    flags: u32
    reserved: Annotated[Array[c_uint32], c_uint32 * 9]


@layout
class KvmIrqRoutingIrqchip(Struct):
    """The line leads to a pin of an interrupt controller."""

    __slots__ = ()
    irqchip: u32
    pin: u32


@layout
class MsiDevice(Union):
    """The union without a name inside ``kvm_irq_routing_msi``."""

    __slots__ = ()
    pad: u32
    devid: u32


@layout
class KvmIrqRoutingMsi(Struct):
    """The line leads to a message-signalled interrupt."""

    __slots__ = ()
    _anonymous_ = ("device",)
    address_lo: u32
    address_hi: u32
    data: u32
    device: MsiDevice
    if TYPE_CHECKING:
        devid: int


@layout
class KvmIrqRoutingS390Adapter(Struct):
    """s390 only; spelled out because it has its share in the size of the union."""

    __slots__ = ()
    ind_addr: u64
    summary_addr: u64
    ind_offset: u64
    summary_offset: u32
    adapter_id: u32


@layout
class KvmIrqRoutingHvSint(Struct):
    """The line leads to a synthetic interrupt of Hyper-V."""

    __slots__ = ()
    vcpu: u32
    sint: u32


@layout
class KvmIrqRoutingXenEvtchn(Struct):
    """The line leads to an event channel of Xen."""

    __slots__ = ()
    port: u32
    vcpu: u32
    priority: u32


@layout
class Route(Union):
    """What ``kvm_irq_routing_entry.type`` selects."""

    __slots__ = ()
    irqchip: KvmIrqRoutingIrqchip
    msi: KvmIrqRoutingMsi
    adapter: KvmIrqRoutingS390Adapter
    hv_sint: KvmIrqRoutingHvSint
    xen_evtchn: KvmIrqRoutingXenEvtchn
    pad: Annotated[Array[c_uint32], c_uint32 * 8]


_ROUTE = {
    KVM_IRQ_ROUTING_IRQCHIP: "irqchip",
    KVM_IRQ_ROUTING_MSI: "msi",
    KVM_IRQ_ROUTING_S390_ADAPTER: "adapter",
    KVM_IRQ_ROUTING_HV_SINT: "hv_sint",
    KVM_IRQ_ROUTING_XEN_EVTCHN: "xen_evtchn",
}


@layout
class KvmIrqRoutingEntry(Struct):
    """Where one global interrupt line (GSI) leads; several entries may share a line."""

    __slots__ = ()
    gsi: u32
    type: u32
    flags: u32
    pad: u32
    u: Route

    def __repr__(self) -> str:
        member = _ROUTE.get(self.type)
        target = f", {getattr(self.u, member)!r}" if member else ""
        return f"KvmIrqRoutingEntry(gsi={self.gsi}, type={self.type}, flags={self.flags:#x}{target})"

    @classmethod
    def to_pin(cls, gsi: int, irqchip: int, pin: int) -> "KvmIrqRoutingEntry":
        """Line ``gsi`` leads to pin ``pin`` of the controller KVM_IRQCHIP_*."""
        entry = cls(gsi=gsi, type=KVM_IRQ_ROUTING_IRQCHIP)
        entry.u.irqchip = KvmIrqRoutingIrqchip(irqchip, pin)
        return entry

    @classmethod
    def to_msi(cls, gsi: int, address: int, data: int) -> "KvmIrqRoutingEntry":
        """Line ``gsi`` sends the message ``data`` to ``address``."""
        entry = cls(gsi=gsi, type=KVM_IRQ_ROUTING_MSI)
        entry.u.msi = KvmIrqRoutingMsi(address & 0xFFFFFFFF, address >> 32, data)
        return entry


@layout
class KvmIrqRouting(FlexibleStruct):
    """The whole routing table of a VM, KVM_SET_GSI_ROUTING."""

    __slots__ = ()
    _count_: ClassVar[str] = "nr"
    nr: u32
    flags: u32
    entries: Annotated[Array[KvmIrqRoutingEntry], KvmIrqRoutingEntry * 0]


@layout
class KvmMsi(Struct):
    """A message-signalled interrupt, KVM_SIGNAL_MSI."""

    __slots__ = ()
    address_lo: u32
    address_hi: u32
    data: u32
    flags: u32
    devid: u32
    pad: Annotated[Array[c_uint8], c_uint8 * 12]


@layout
class KvmIrqfd(Struct):
    """An eventfd that raises an interrupt line, KVM_IRQFD."""

    __slots__ = ()
    fd: u32
    gsi: u32
    flags: u32
    resamplefd: u32
    pad: Annotated[Array[c_uint8], c_uint8 * 16]


@layout
class KvmIoeventfd(Struct):
    """An eventfd that a guest write to a port or an address signals, KVM_IOEVENTFD."""

    __slots__ = ()
    datamatch: u64
    addr: u64
    len: u32
    fd: s32
    flags: u32
    pad: Annotated[Array[c_uint8], c_uint8 * 36]


@layout
class KvmReinjectControl(Struct):
    """Whether lost ticks of the timer are made up for, KVM_REINJECT_CONTROL."""

    __slots__ = ()
    pit_reinject: u8
    reserved: Annotated[Array[c_uint8], c_uint8 * 31]
