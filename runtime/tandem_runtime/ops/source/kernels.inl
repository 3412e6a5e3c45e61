// The kernels for one instruction set. The file that includes this has chosen TANDEM_WIDTH (floats in a vector),
// TANDEM_SPACE (name space) and TANDEM_TABLE (name of the table).

namespace tandem {
namespace TANDEM_SPACE {

#include "vectors.inl"

#include "panels.inl"

#include "matrix.inl"

#include "attention.inl"

#include "rows.inl"

#include "sampling.inl"

}  // namespace TANDEM_SPACE

#define TANDEM_TEXT_(name) #name
#define TANDEM_TEXT(name) TANDEM_TEXT_(name)
namespace here = TANDEM_SPACE;

extern const Kernels TANDEM_TABLE = {
    TANDEM_TEXT(TANDEM_SPACE), here::kPanel, kMaxRows, kAllRows, here::packed_bytes, here::pack, here::unpack_row,
    here::input_bytes, here::quantise, here::gemm, here::norm, here::attend, here::scan, here::weigh, here::read,
};

}  // namespace tandem
