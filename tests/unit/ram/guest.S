/* A guest in one boot sector. It takes a nonce from the time stamp counter, fills memory from 1 MiB to 32 MiB with
 * words made of nonce and address, and then, again and again: writes its counter into the MiB behind, compares all
 * of that memory, and tells on the serial port `NONCE COUNTER OK` or `... BAD`. Nonce and counter live in memory. */
        .code16
        .globl _start
_start: cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %ss
        movw $0x7c00, %sp
        inb $0x92, %al
        orb $2, %al
        outb %al, $0x92
        lgdt gdtr
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmp $8, $main

        .code32
        .set NONCE, 0x8000
        .set COUNTER, 0x8004
        .set FILL, 0x100000
        .set ROUND, 0x2000000
        .set END, 0x2100000
main:   movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0x7c00, %esp
        rdtsc
        orl $1, %eax
        movl %eax, NONCE
        movl $0, COUNTER
        movl $FILL, %edi
1:      leal (%eax,%edi), %ecx
        movl %ecx, (%edi)
        addl $4, %edi
        cmpl $ROUND, %edi
        jb 1b

round:  incl COUNTER
        movl COUNTER, %eax
        movl $ROUND, %edi
        movl $(END - ROUND) / 4, %ecx
        rep stosl
        movl NONCE, %ebx
        movl $'O' | 'K' << 8 | '\n' << 16, %ebp
        movl $FILL, %edi
2:      leal (%ebx,%edi), %ecx
        cmpl %ecx, (%edi)
        jne bad
        addl $4, %edi
        cmpl $ROUND, %edi
        jb 2b
3:      cmpl %eax, (%edi)
        jne bad
        addl $4, %edi
        cmpl $END, %edi
        jb 3b
tell:   movl NONCE, %eax
        call hex
        movl COUNTER, %eax
        call hex
4:      movl %ebp, %eax
        call put
        shrl $8, %ebp
        jnz 4b
        jmp round
bad:    movl $'B' | 'A' << 8 | 'D' << 16 | '\n' << 24, %ebp
        jmp tell

hex:    movl $8, %ecx
5:      roll $4, %eax
        pushl %eax
        andb $15, %al
        cmpb $10, %al
        jb 6f
        addb $7, %al
6:      addb $'0', %al
        call put
        popl %eax
        loop 5b
        movb $' ', %al
put:    pushl %eax
        movw $0x3fd, %dx
7:      inb %dx, %al
        testb $0x20, %al
        jz 7b
        popl %eax
        movw $0x3f8, %dx
        outb %al, %dx
        ret

        .align 8
gdt:    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:   .word gdtr - gdt - 1
        .long gdt
        .org 510
        .word 0xaa55
