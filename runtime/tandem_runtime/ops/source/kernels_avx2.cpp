#if defined(__x86_64__)
#include "includes.h"

#pragma GCC target("avx2,fma")
#define TANDEM_WIDTH 8
#define TANDEM_SPACE avx2
#define TANDEM_TABLE kAvx2
#include "kernels.inl"
#endif
