#include "includes.h"

#define TANDEM_WIDTH 4
#define TANDEM_SPACE generic
#define TANDEM_TABLE kGeneric
#include "kernels.inl"
