/* A guest in one boot sector, in real mode: for hosts where KVM runs nothing larger. It says what agent.c says, about a
 * nonce and a counter in memory and the same on its disk:
 *
 *   T NONCE MEMORY DISK      at each tick of the BIOS's clock (18.2 a second); MEMORY and DISK must be equal
 *   E                        they are not
 *
 * The page at PAGE begins as that of agent.c, so that a memory image can be searched for it; its first 512 bytes are
 * written to sector 1 of the disk after each step. */
        .code16
        .globl _start
        .set PAGE, 0x8000     /* magic, 16 bytes; nonce, counter, 8 each, little-endian */
        .set NONCE, PAGE + 16
        .set COUNTER, PAGE + 24
        .set READ, 0x9200     /* what the disk holds; not at the start of a page, or it would be taken for PAGE */
        .set TICKS, 0x46c     /* the BIOS's */

_start: ljmp $0, $1f
1:      xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        movb %dl, drive
        cld
        sti
        movw $PAGE, %di
        movw $2048, %cx
        rep stosw
        movw $magic, %si
        movw $PAGE, %di
        movw $12, %cx
        rep movsb
        rdtsc
        movl %eax, NONCE
        imull $0x9e3779b1, %eax, %eax
        movl %eax, NONCE + 4

/* The disk begins with the memory's counter. */
        call write
step:   movw $READ, packet + 4
        movb $0x42, %ah
        call disk
        movb $'T', %al
        call put_and_blank
        movl NONCE + 4, %eax
        call hex
        movl NONCE, %eax
        call hex
        movb $' ', %al
        call put
        movl COUNTER, %eax
        call decimal
        movb $' ', %al
        call put
        movl READ + 24, %eax
        call decimal
        call line
        movl COUNTER, %eax
        cmpl READ + 24, %eax
        jne wrong
        movl NONCE, %eax
        cmpl READ + 16, %eax
        je 2f
wrong:  movb $'E', %al
        call put_and_blank
        call line
2:      movl TICKS, %ebx
3:      hlt
        cmpl TICKS, %ebx
        je 3b
        incl COUNTER
        call write
        jmp step

write:  movw $PAGE, packet + 4
        movb $0x43, %ah
/* AH: 42 reads, 43 writes sector 1. An error is an E line. */
disk:   movb $0, %al
        movb drive, %dl
        movw $packet, %si
        int $0x13
        jc wrong
        ret

hex:    movw $8, %cx
4:      roll $4, %eax
        pushl %eax
        andb $15, %al
        cmpb $10, %al
        jb 5f
        addb $'a' - '0' - 10, %al
5:      addb $'0', %al
        call put
        popl %eax
        loop 4b
        ret

decimal: movl $10, %ecx
        xorl %edx, %edx
        divl %ecx
        pushw %dx
        testl %eax, %eax
        jz 6f
        call decimal
6:      popw %ax
        addb $'0', %al
        jmp put

line:   movb $'\n', %al
        jmp put
put_and_blank:
        call put
        movb $' ', %al
put:    pushw %ax
        movw $0x3fd, %dx
7:      inb %dx, %al
        testb $0x20, %al
        jz 7b
        popw %ax
        movw $0x3f8, %dx
        outb %al, %dx
        ret

drive:  .byte 0
magic:  .ascii "bough-memory"
        .align 4
packet: .byte 16, 0
        .word 1, 0, 0
        .quad 1
        .org 510
        .word 0xaa55
