// Everything that kernels.inl needs, included before a file chooses its instruction set: what is inline here must
// stay runnable on every processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"
