#include "coroutine.h"

#if defined(PYSAMP_HAS_FIBERS)

#if defined(__APPLE__)
#define PYSAMP_SYMBOL(name) "_" name
#define PYSAMP_HIDE(name) ".private_extern _" name "\n"
#else
#define PYSAMP_SYMBOL(name) name
#define PYSAMP_HIDE(name) ".hidden " name "\n"
#endif

#if defined(__x86_64__)
asm(".text\n"
    ".globl " PYSAMP_SYMBOL("pysamp_switch_stack") "\n"
    PYSAMP_HIDE("pysamp_switch_stack")
    PYSAMP_SYMBOL("pysamp_switch_stack") ":\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  subq $8, %rsp\n"
    "  stmxcsr (%rsp)\n"
    "  fnstcw 4(%rsp)\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  ldmxcsr (%rsp)\n"
    "  fldcw 4(%rsp)\n"
    "  addq $8, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n");
#else
asm(".text\n"
    ".globl " PYSAMP_SYMBOL("pysamp_switch_stack") "\n"
    PYSAMP_HIDE("pysamp_switch_stack")
    ".p2align 2\n"
    PYSAMP_SYMBOL("pysamp_switch_stack") ":\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n"
    "  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n"
    "  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n"
    "  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");
#endif

namespace pysamp {

void Fiber::entry() {
    Fiber* self;
#if defined(__x86_64__)
    asm volatile("movq %%r12, %0" : "=r"(self));
#else
    asm volatile("mov %0, x19" : "=r"(self));
#endif
    self->run();
}

}  // namespace pysamp

#endif
