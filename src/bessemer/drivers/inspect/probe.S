# The firmware that the KVM probe runs (its bytes stand in firmware.py). It does what every kernel does first: page
# tables, long mode, interrupts; five ticks of the timer later it writes 0x15 to port 0xf4, which ends QEMU with status 43.
#
#   as -o probe.o probe.S && ld -m elf_x86_64 -Ttext 0 --oformat binary -o probe.bin probe.o

.set base, 0xf0000
.code16
.globl _start
_start:
 cli
 xorw %ax,%ax
 movw %ax,%ds

 # The first 2 MiB and the local APIC's 2 MiB, mapped where they are.
 movl $0x2003,0x1000
 movl $0x3003,0x2000
 movl $0x4003,0x2018
 movl $0x83,0x3000
 movl $0xfee00083,0x4fb8

 # Long mode.
 movl $0x1000,%eax
 movl %eax,%cr3
 movl %cr4,%eax
 orb $0x20,%al
 movl %eax,%cr4
 movl $0xc0000080,%ecx
 rdmsr
 orb $1,%ah
 wrmsr
 lgdtl %cs:gdtr
 movl %cr0,%eax
 orl $0x80000001,%eax
 movl %eax,%cr0
 ljmpl $8,$(long+base)
.code64
long:
 movl $0x7000,%esp

 # The interrupt controllers: the old one hands on through the local APIC; its first line is vector 32.
 movl $0xfee00000,%ebx
 movl $0x700,0x350(%rbx)
 movl $0x1ff,0xf0(%rbx)
 movw $tick,0x5200
 movl $0x8e000008,0x5202
 movw $0xf,0x5206
 lidt idtr(%rip)
 movb $0x11,%al
 outb %al,$0x20
 movb $0x20,%al
 outb %al,$0x21
 movb $0x04,%al
 outb %al,$0x21
 movb $0x01,%al
 outb %al,$0x21
 movb $0xfe,%al
 outb %al,$0x21

 # A tick per millisecond.
 movb $0x34,%al
 outb %al,$0x43
 movb $0xa9,%al
 outb %al,$0x40
 movb $0x04,%al
 outb %al,$0x40

 xorl %edx,%edx
 sti
1: hlt
 cmpl $5,%edx
 jb 1b
 movb $0x15,%al
 outb %al,$0xf4
 hlt
tick:
 incl %edx
 movb $0x20,%al
 outb %al,$0x20
 iretq
.p2align 3
gdt: .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr: .word 23
 .long gdt+base
idtr: .word 0x20f
 .quad 0x5000
