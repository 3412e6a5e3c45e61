#if defined(__x86_64__)
#include "includes.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#define TANDEM_WIDTH 16
#define TANDEM_SPACE avx512
#define TANDEM_TABLE kAvx512
#include "kernels.inl"
#endif
