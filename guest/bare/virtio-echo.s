# title: Virtio console echo
# what: A whole virtio driver: finds the console, sets it up, and sends back what comes, until it begins with "quit".
# input: on the virtio console: text, at last "quit"
# expect: "ready" on the console, then what was sent, then "bye"; exit code 0
#
# Bytes travel in memory: the driver puts the address of a buffer into the available ring and notifies the device, which
# is one exit however long the buffer is; the device answers in the used ring and interrupts. Here the receiving buffer
# is given to the transmitting queue as it is, so nothing is copied in the guest.
#
# Virtio 1.2, 2.7 (split queues), 3.1.1 (initialisation), 4.2 (MMIO), 5.3 (console). Without the feature MULTIPORT there
# are two queues: 0 receives, 1 transmits.

        .include "long.inc"
        .include "virtio.inc"

        .set    BUFFER_SIZE, 4096

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        call    find_console
        test    ebx, ebx
        jz      no_console
        xor     r8d, r8d                # no features but VERSION_1
        call    begin
        test    eax, eax
        jz      refused
        xor     ecx, ecx
        lea     rdi, [rip + receive]
        call    set_queue
        mov     ecx, 1
        lea     rdi, [rip + transmit]
        call    set_queue
        call    go

        lea     rsi, [rip + ready]
        mov     ecx, offset ready_end - ready
        call    send

echo:   lea     rdi, [rip + receive]
        lea     rsi, [rip + buffer]
        mov     ecx, BUFFER_SIZE
        mov     edx, DESC_F_WRITE
        call    offer
        call    wait_used               # ECX: how much came
        cmp     dword ptr [rip + buffer], 0x74697571    # "quit" as a little-endian number
        je      quit
        call    send
        jmp     echo

quit:   lea     rsi, [rip + bye]
        mov     ecx, offset bye_end - bye
        call    send
        exit    0

no_console:
        print   "there is no virtio console\n"
        exit    1
refused:
        print   "the device refused the features\n"
        exit    1

# ECX bytes at RSI go out; returns when the device has them.
send:   lea     rdi, [rip + transmit]
        xor     edx, edx
        call    offer
        jmp     wait_used

        .section .rodata
ready:  .ascii  "ready\n"
ready_end:
bye:    .ascii  "bye\n"
bye_end:

        .bss
        .balign 4096
receive:
        .skip   QUEUE_PAGE
transmit:
        .skip   QUEUE_PAGE
buffer: .skip   BUFFER_SIZE
