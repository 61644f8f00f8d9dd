# title: CPUID
# what: Asks the processor who it is, and the hypervisor as well.
# expect: vendor, brand, family and model of the host's processor, then KVM's signature and features; exit code 0
#
# The bit "hypervisor" (leaf 1, ECX bit 31) is 0 on every real processor. Where it is set, leaf 0x40000000 has the
# hypervisor's signature: "KVMKVMKVM". What the guest sees of all this is what the VMM chose by KVM_SET_CPUID2.
#
# Intel SDM 2A, CPUID; AMD APM 3, appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.

        .include "long.inc"

        .set    HYPERVISOR, 31
        .set    KVM_FEATURE_CLOCKSOURCE2, 3

        .globl  start
start:
        lea     rsp, [rip + stack_top]

        print   "vendor:     "
        xor     eax, eax
        cpuid
        mov     [rip + text], ebx       # the twelve characters are in this order
        mov     [rip + text + 4], edx
        mov     [rip + text + 8], ecx
        mov     byte ptr [rip + text + 12], 0
        call    print_line

        print   "brand:      "
        mov     esi, 0x80000002         # three leaves with 16 characters each
        lea     rdi, [rip + text]
1:      mov     eax, esi
        cpuid
        mov     [rdi], eax
        mov     [rdi + 4], ebx
        mov     [rdi + 8], ecx
        mov     [rdi + 12], edx
        add     rdi, 16
        inc     esi
        cmp     esi, 0x80000005
        jb      1b
        mov     byte ptr [rdi], 0
        cmp     byte ptr [rip + text], 0
        jne     2f
        mov     dword ptr [rip + text], 0x656e6f6e      # "none", where KVM does not pass the host's on
        mov     byte ptr [rip + text + 4], 0
2:      call    print_line

        mov     eax, 1
        cpuid
        mov     r12d, ecx               # its features are needed further down
        mov     r8d, eax
        shr     r8d, 8
        and     r8d, 15                 # family,
        mov     r9d, eax
        shr     r9d, 20
        and     r9d, 255                # its extension,
        add     r9d, r8d
        mov     r10d, eax
        shr     r10d, 4
        and     r10d, 15                # model,
        shr     eax, 12
        and     eax, 0xf0               # and its extension
        or      r10d, eax
        print   "family:     0x"
        print_hex r9, 2
        print   ", model 0x"
        print_hex r10, 2
        print   "\n"

        bt      r12d, HYPERVISOR
        jc      virtual
        print   "hypervisor: none\n"
        exit    0

virtual:
        mov     eax, 0x40000000
        cpuid
        mov     [rip + text], ebx       # here in another order
        mov     [rip + text + 4], ecx
        mov     [rip + text + 8], edx
        mov     byte ptr [rip + text + 12], 0
        print   "hypervisor: "
        call    print_line
        mov     eax, 0x40000001
        cpuid
        print   "features:   0x"
        mov     ebx, eax
        print_hex rbx, 8
        bt      ebx, KVM_FEATURE_CLOCKSOURCE2
        jnc     1f
        print   ", with kvmclock"
1:      print   "\n"
        exit    0

print_line:
        lea     rsi, [rip + text]
        call    print_text
        print   "\n"
        ret

        .bss
text:   .skip   3 * 16 + 1
