// Which row of a weight stands in which column of which panel: 2 W columns, those of pairs half gate and half up.

constexpr int kPanel = 2 * W;

static int64_t panels_of(int64_t n, int32_t pairs) {
    return pairs ? (n / 2 + W - 1) / W : (n + kPanel - 1) / kPanel;
}

// Row of the weight that stands in column `column` of panel `panel`; -1: padding.
static int64_t row_of(int64_t n, int32_t pairs, int64_t panel, int column) {
    if (!pairs) {
        const int64_t row = panel * kPanel + column;
        return row < n ? row : -1;
    }
    const int64_t place = panel * W + column % W;
    return place < n / 2 ? place + (column < W ? 0 : n / 2) : -1;
}
