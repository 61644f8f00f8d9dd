# title: Virtio console with several ports
# what: Asks a virtio console for its ports, prints what it says of each, opens them all and sends a line to each.
# expect: what the device tells on COM1; on each port "hello from port N"; exit code 0
#
# With the feature MULTIPORT two control queues come first among the others: the driver says DEVICE_READY, the device adds
# ports, the driver says PORT_READY, and the device tells what the port is: a console, or its name, and whether the host
# has it open. Each port has two queues of its own: 0 and 1 for port 0, 2N + 2 and 2N + 3 for port N.
#
# Virtio 1.2, 5.3.6.2 (multiport device operation).

        .include "long.inc"
        .include "virtio.inc"

        .set    CONTROL_RECEIVE, 2      # numbers of queues
        .set    CONTROL_TRANSMIT, 3
        .set    MAX_NR_PORTS, 0x104     # struct virtio_console_config lies at 0x100; this is its third field
        .set    MOST_PORTS, 8

# struct virtio_console_control
        .set    PORT, 0
        .set    EVENT, 4
        .set    VALUE, 6
        .set    CONTROL_SIZE, 8         # a name follows, without a zero

        .set    DEVICE_READY, 0
        .set    PORT_ADD, 1
        .set    PORT_READY, 3
        .set    CONSOLE_PORT, 4
        .set    RESIZE, 5
        .set    PORT_OPEN, 6
        .set    PORT_NAME, 7

        .set    MESSAGE_SIZE, 128

        .globl  start
start:
        lea     rsp, [rip + stack_top]
        call    find_console
        test    ebx, ebx
        jz      no_console
        mov     r8d, VIRTIO_CONSOLE_F_MULTIPORT
        call    begin
        test    eax, eax
        jz      refused
        test    r8d, r8d
        jz      refused

        mov     r14d, [rbx + MAX_NR_PORTS]
        cmp     r14d, MOST_PORTS
        jbe     1f
        mov     r14d, MOST_PORTS
1:      mov     ecx, CONTROL_RECEIVE
        lea     rdi, [rip + control_receive]
        call    set_queue
        mov     ecx, CONTROL_TRANSMIT
        lea     rdi, [rip + control_transmit]
        call    set_queue
        xor     r12d, r12d
2:      call    transmit_queue          # of port R12D: only those that transmit, as we do not listen to ports here
        call    set_queue
        inc     r12d
        cmp     r12d, r14d
        jb      2b
        call    go

        xor     r12d, r12d
        mov     eax, DEVICE_READY
        call    tell
        mov     r15d, r14d              # ports that have not been added yet

# First the device adds all its ports, and tells nothing of those that we have not called ready.
adding: call    hear
        cmp     ax, PORT_ADD
        jne     adding
        print   "port "
        print_dec r12
        print   " is there\n"
        dec     r15d
        jnz     adding

# Then one after the other. The last thing that the device says of a port is that the host has it open.
        xor     r13d, r13d
next:   mov     r12d, r13d
        mov     eax, PORT_READY
        call    tell
listen: call    hear
        print   "port "
        print_dec r12
        cmp     ax, CONSOLE_PORT
        je      is_console
        cmp     ax, PORT_NAME
        je      is_named
        cmp     ax, PORT_OPEN
        je      is_open
        print   " says something else\n"
        jmp     listen
is_console:
        print   " is a console\n"
        jmp     listen
is_named:
        print   " is called "
        lea     rsi, [rip + message + CONTROL_SIZE]
        call    print_text              # "hear" has put a zero behind the name
        print   "\n"
        jmp     listen
is_open:
        print   " is open\n"
        mov     eax, PORT_OPEN
        call    tell
        lea     rsi, [rip + hello]
        mov     ecx, offset hello_end - hello
        mov     eax, r12d
        add     al, '0'
        mov     [rip + hello_number], al
        call    transmit_queue
        xor     edx, edx
        mov     ecx, offset hello_end - hello
        call    offer
        call    wait_used
        inc     r13d
        cmp     r13d, r14d
        jb      next
        exit    0

no_console:
        print   "there is no virtio console\n"
        exit    1
refused:
        print   "the device has no ports\n"
        exit    1

# Tell the device event EAX of port R12D, with the value 1.
tell:   lea     rsi, [rip + message]
        mov     [rsi + PORT], r12d
        mov     [rsi + EVENT], ax
        mov     word ptr [rsi + VALUE], 1
        mov     ecx, CONTROL_SIZE
        xor     edx, edx
        lea     rdi, [rip + control_transmit]
        call    offer
        jmp     wait_used

# Hear the next message: AX is the event, R12D the port.
hear:   lea     rdi, [rip + control_receive]
        lea     rsi, [rip + message]
        mov     ecx, MESSAGE_SIZE - 1
        mov     edx, DESC_F_WRITE
        call    offer
        call    wait_used
        lea     rsi, [rip + message]
        mov     byte ptr [rsi + rcx], 0
        mov     r12d, [rsi + PORT]
        mov     ax, [rsi + EVENT]
        ret

# RDI and ECX: page and number of the queue by which port R12D transmits.
transmit_queue:
        mov     edi, r12d
        shl     edi, 12                 # QUEUE_PAGE
        lea     rcx, [rip + transmit]
        add     rdi, rcx
        mov     ecx, 1
        test    r12d, r12d
        jz      1f
        lea     ecx, [r12 * 2 + 3]
1:      ret

        .data
hello:  .ascii  "hello from port "
hello_number:
        .ascii  "N\n"
hello_end:

        .bss
        .balign 4096
control_receive:
        .skip   QUEUE_PAGE
control_transmit:
        .skip   QUEUE_PAGE
transmit:
        .skip   QUEUE_PAGE * MOST_PORTS
message:
        .skip   MESSAGE_SIZE
