// Everything that kernels.inl needs, included before a file chooses its instruction set: what is inline here must
// stay runnable on every processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(TANDEM_INTRINSICS)  // tests: some of them as plain loops
#include TANDEM_INTRINSICS
#endif
#endif

#include "kernels.h"
#include "wide.h"
