/* A guest in one boot sector that adds one to the first word of each page from FIRST up to LAST, again and again. It is in
 * real mode, with segments as large as memory, and lets no interrupt in: nothing makes the processor forget that it may write
 * to these pages. At no moment do two of them differ by more than one, and none is greater than one before it. */
        .code16
        .globl _start
        .set FIRST, 0x100000
        .set LAST, 0x4000000

_start: cli
        ljmp $0, $1f
1:      xorw %ax, %ax
        movw %ax, %ds
        lgdtl table_register
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        movw $8, %bx
        movw %bx, %ds           /* its limit stays behind the way back */
        andb $0xfe, %al
        movl %eax, %cr0
        xorw %ax, %ax
        movw %ax, %ds
        movl $FIRST, %ebx
2:      movl $0, (%ebx)
        addl $0x1000, %ebx
        cmpl $LAST, %ebx
        jb 2b
        movw $0x3f8, %dx        /* "R", a line: it runs */
        movb $'R', %al
        outb %al, %dx
        movb $'\n', %al
        outb %al, %dx
3:      movl $FIRST, %ebx
4:      incl (%ebx)
        addl $0x1000, %ebx
        cmpl $LAST, %ebx
        jb 4b
        jmp 3b

        .align 8
table:  .quad 0, 0x00cf92000000ffff
table_register:
        .word 15
        .long table
        .org 510
        .word 0xaa55
