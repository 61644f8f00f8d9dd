# title: Hello from real mode
# what: The smallest program: a PC's processor as it comes out of reset, and a line of text on the serial port.
# expect: "Hello from real mode!", exit code 0
#
# This is how a boot sector begins: 16-bit code at 0000:7c00. Addresses are segment * 16 + offset, there is no protection,
# and the serial port is two instructions away: IN reads its line status, OUT sends a byte. Each of them leaves the virtual
# machine (KVM_EXIT_IO), is answered by pyvmm/devices/serial.py, and the processor goes on.
#
# Intel SDM 3A, 20.1 (real-address mode); 1, 19 (input/output).

        .code16
        .include "real.inc"

        .globl  start
start:
        cli                             # there is no interrupt table yet
        xor     ax, ax
        mov     ds, ax                  # segment 0: offsets are physical addresses
        mov     ss, ax
        mov     sp, FLAT_PROGRAM        # the stack grows down from the program

        print   "Hello from real mode!\n"
        exit    0
