# SPDX-License-Identifier: Apache-2.0
# The smallest guest that shows whether it goes on: a boot sector that counts on the first serial port, in a register
# and in memory, some times a second. It says so where the two differ.
	.code16
	.globl _start
_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7000, %sp
	xorl	%ebx, %ebx
	movl	%ebx, 0x8000
count:
	incl	%ebx
	incl	0x8000
	movw	$told, %si
	cmpl	%ebx, 0x8000
	je	tell
	movw	$differs, %si
tell:
	movb	(%si), %al
	testb	%al, %al
	jz	number
	call	put
	incw	%si
	jmp	tell
number:
	movb	$28, %cl
digit:
	movl	%ebx, %eax
	shrl	%cl, %eax
	andb	$15, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	decimal
	addb	$7, %al
decimal:
	call	put
	subb	$4, %cl
	jns	digit
	movb	$'\n', %al
	call	put
	movl	$DELAY, %ecx
wait:
	decl	%ecx
	jnz	wait
	jmp	count
put:
	movw	$0x3f8, %dx
	outb	%al, %dx
	ret
told:
	.asciz	"vmrole: count "
differs:
	.asciz	"vmrole: differs "
	.org	510
	.word	0xaa55
