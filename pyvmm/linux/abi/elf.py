"""``linux/elf.h``, ``linux/auxvec.h``: ELF64 headers and the auxiliary vector."""

import struct

ELFMAG = b"\x7fELF"
ELFCLASS32, ELFCLASS64, ELFDATA2LSB = 1, 2, 1
ET_EXEC, ET_DYN = 2, 3
EM_X86_64 = 62
PT_LOAD, PT_INTERP, PT_NOTE, PT_GNU_STACK = 1, 3, 4, 0x6474_E551
PF_X, PF_W, PF_R = 1, 2, 4

#: e_ident[16] e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize e_phentsize e_phnum e_shentsize
#: e_shnum e_shstrndx
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
#: p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align
PHDR = struct.Struct("<IIQQQQQQ")
#: n_namesz n_descsz n_type
NHDR = struct.Struct("<III")

AT_NULL = 0
AT_PHDR = 3
AT_PHENT = 4
AT_PHNUM = 5
AT_PAGESZ = 6
AT_BASE = 7
AT_FLAGS = 8
AT_ENTRY = 9
AT_UID = 11
AT_EUID = 12
AT_GID = 13
AT_EGID = 14
AT_PLATFORM = 15
AT_HWCAP = 16
AT_CLKTCK = 17
AT_SECURE = 23
AT_RANDOM = 25
AT_HWCAP2 = 26
AT_EXECFN = 31
AT_SYSINFO_EHDR = 33
AT_MINSIGSTKSZ = 51
