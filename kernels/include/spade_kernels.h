/* The one interface of the native kernels: plain C, caller-owned memory, no Python and no PyTorch.
 *
 * Every function returns a spade_status; sizes count elements unless the name says bytes. Nothing is allocated, nothing
 * is kept between calls, and no function touches global state: any number of threads may call, each with its own
 * scratch.
 */
#ifndef SPADE_KERNELS_H
#define SPADE_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum spade_status {
    SPADE_OK = 0,
    SPADE_ERROR_NULL = 1,        /* a required pointer is null */
    SPADE_ERROR_SIZE = 2,        /* a height or width is below 1, or the padded level is above SPADE_PLAN_MAX_PIXELS */
    SPADE_ERROR_N_SYMBOLS = 3,   /* n_symbols is not in 1 .. SPADE_PLAN_MAX_SYMBOLS */
    SPADE_ERROR_KERNEL_SIZE = 4, /* kernel_size is not 1, 3 or 5 */
    SPADE_ERROR_SCRATCH = 5,     /* scratch is smaller than spade_plan_scratch_bytes says, or not aligned to 8 bytes */
    SPADE_ERROR_STEP = 6,        /* a step's kind is unknown or its overlaps are negative */
    SPADE_ERROR_ISA = 7,         /* a step's isa is unknown or this processor does not run it */
    SPADE_ERROR_MEMORY = 8       /* the pool's scratch could not be allocated */
} spade_status;

/* One English sentence for a status, static storage; never null. */
const char* spade_status_message(spade_status status);

/* Label maps [n, height, width] of a request. */
typedef struct spade_symbols_shape {
    int64_t n;
    int64_t height;
    int64_t width;
    int32_t classes;      /* ids are 0 .. classes - 1, at most 256 */
    int32_t dont_care_id; /* what label 255 becomes, or -1: nothing else */
} spade_symbols_shape;

/* The symbols that a generator reads: a pixel's id or, with instances, 2 * id + 1 on the edges between them.
 *   labels    uint8 [n, height, width]
 *   instances int32, the same shape, or null
 *   symbols   uint16, the same shape, out
 *   all_known out: 1 if every id is below classes */
spade_status spade_symbols(const spade_symbols_shape* shape, const uint8_t* labels, const int32_t* instances,
                           uint16_t* symbols, int32_t* all_known);

#define SPADE_PLAN_MAX_SYMBOLS 65535
#define SPADE_PLAN_MAX_PIXELS (INT64_C(1) << 28)

/* The level to plan: a symbol map [map_height, map_width] brought to [height, width] by NEAREST. */
typedef struct spade_plan_shape {
    int64_t map_height;
    int64_t map_width;
    int64_t height;
    int64_t width;
    int32_t n_symbols;   /* symbols are 0 .. n_symbols - 1; n_symbols itself is "outside the image" */
    int32_t kernel_size; /* k: 1, 3 or 5 */
} spade_plan_shape;

/* How many rows the two tables of a level have. */
typedef struct spade_plan_counts {
    int64_t patches3;
    int64_t patches5;
} spade_plan_counts;

/* Numbers the distinct patches of one level of one map. It runs twice: first without tables, which it counts the rows
 * of, and then with them, which it fills. */
typedef struct spade_plan {
    spade_plan_shape shape;
    const uint16_t* symbols;   /* [map_height][map_width], rows row_stride apart */
    int64_t row_stride;        /* elements */
    void* scratch;             /* spade_plan_scratch_bytes, aligned to 8, of this plan alone until it has run twice */
    int32_t* index;            /* [height][width], out, by the first run: rows of patches5 */
    spade_plan_counts* counts; /* out, by the first run */
    int32_t* patches3;         /* null, then [counts.patches3][k*k], out: symbols, outside = n_symbols */
    int32_t* patches5;         /* null, then [counts.patches5][k*k], out: rows of patches3, outside = counts.patches3 */
} spade_plan;

/* Bytes of scratch that a plan of this level needs. */
spade_status spade_plan_scratch_bytes(const spade_plan_shape* shape, int64_t* bytes);

/* The position, row-major, of the first symbol that is not below n_symbols, or -1. */
spade_status spade_plan_first_bad_symbol(const uint16_t* symbols, int64_t count, int32_t n_symbols, int64_t* position);

/* Checks a plan whose scratch holds scratch_bytes, and gets it ready for the first run. */
spade_status spade_plan_start(const spade_plan* plan, int64_t scratch_bytes);

/* A plan has two units. The second follows the first row by row, so it runs after it, or beside it on another thread.
 */
int64_t spade_plan_units(const spade_plan* plan);
void spade_plan_run(const spade_plan* plan, int64_t begin, int64_t end);

/* Moves row numbers to a longer table: out[i] = rows[i] == outside ? new_outside : rows[i] + offset, i < count. In
 * place is allowed. */
spade_status spade_plan_rebase(const int32_t* rows, int64_t count, int32_t outside, int32_t offset, int32_t new_outside,
                               int32_t* out);

/* ---- Steps of the generator ----
 *
 * A step is one kernel on its arguments; its work is a range of units, 0 .. spade_<op>_units(args). Each output element
 * is computed whole within one unit, in an order that depends neither on the range nor on the batch. Kernels run on the
 * calling thread. The caller owns all memory; nothing is checked here (kernels/ops/ does).
 *
 * Plain maps and entries are stored as T, what products read (padded maps, hidden rows) as I, and sums are float32:
 *   avx2, avx512  T and I float32
 *   avx512bf16    T and I bf16
 *   amx           T float16, I bf16; it modulates in float16
 * bf16 is stored as uint16; all are rounded to nearest even. A block is 32 channels, CB = ceil(C / 32); unused channels
 * of a block are zero in every map.
 *   padded map  I [N][H + 2][CB][W + 2][32], the border zero
 *   plain map   T [N][H][CB][W][32]
 *   entries     T [CB][U5][2][32], 32 a and then 32 b; written and read block by block, so a block's lie together.
 *               Several maps may share a table: the entries of one are a run of rows in every block. */

typedef enum spade_isa {
    SPADE_ISA_AVX2 = 0,
    SPADE_ISA_AVX512 = 1,
    SPADE_ISA_AVX512BF16 = 2,
    SPADE_ISA_AMX = 3,
    SPADE_ISAS = 4
} spade_isa;

/* 1 if this processor runs the isa, else 0. */
int32_t spade_isa_supported(int32_t isa);

/* Channels of actv, the hidden map. */
#define SPADE_HIDDEN 128

/* Conv on a one-hot map: out = bias + sum over taps of table[tap][patches[row][tap]], with ReLU if relu is 1.
 * Hidden rows may be bytes, for the products of int8: rounded to nearest even and limited to 0 .. 255. */
typedef struct spade_embed {
    const float* table;     /* [taps][symbols + 1][depth], row `symbols` of each tap zero */
    const float* bias;      /* [depth] */
    const int32_t* patches; /* [rows][taps], 0 .. symbols */
    void* out;              /* T [rows / width][depth / 32][width][32]; with zero_row, I [rows + 1][depth] */
    int64_t rows;
    int64_t taps;
    int64_t symbols;
    int64_t depth;    /* a multiple of 32 */
    int64_t width;    /* rows in a line of a plain map; divides rows; 1 with zero_row */
    int64_t relu;     /* 0 or 1 */
    int64_t zero_row; /* 1: row `rows` is written too, with zeros */
    int64_t as_bytes; /* 1: with zero_row, out is uint8 [rows + 1][depth]; amx only */
} spade_embed;

/* entries[u] = bias + sum over taps of actv[patches[u][tap]] x weight[tap].
 * Both forms sum the products of a tap first and then the taps, so they give the same bits. The isa amx sums all
 * products in one go and has the gathered form only.
 *
 * With `scale`, which only amx takes, actv are bytes and weights int8: entries[u] = bias + scale * (that sum, exact in
 * int32). A patch that is one symbol all over, so most pixels of a map, has its entry from the table `interior` then,
 * which holds it unrounded by int8. */
typedef enum spade_codebook_form {
    SPADE_CODEBOOK_GATHERED = 0, /* multiplies the gathered rows: rows * taps products of a row with the weights */
    SPADE_CODEBOOK_PER_TAP = 1   /* multiplies every row of actv once per tap, and sums gathered rows of the products */
} spade_codebook_form;

typedef struct spade_codebook {
    const void* actv;       /* I [actv_rows][SPADE_HIDDEN] */
    const int32_t* patches; /* [rows][taps], 0 .. actv_rows - 1 */
    const void* weight;     /* packed by spade_codebook_pack for the same isa */
    const float* bias;      /* [blocks][2][32] */
    void* entries;          /* T [blocks][entry_rows][2][32] */
    int64_t rows;
    int64_t entry_rows; /* rows or more */
    int64_t taps;
    int64_t actv_rows;
    int64_t blocks;
    int64_t form;           /* spade_codebook_form */
    const float* scale;     /* [blocks][2][32], or null */
    const int32_t* windows; /* with scale: [actv_rows - 1][taps], the symbols that each row of actv was made of */
    const void* interior;   /* with scale: T [blocks][symbols][2][32] */
    int64_t symbols;
} spade_codebook;

/* Packed weights of a codebook: bytes -> pack -> use. weight is float32 [taps * SPADE_HIDDEN][2 * channels], a before
 * b; packed is aligned to 64 bytes. */
int64_t spade_codebook_packed_bytes(int32_t isa, int64_t taps, int64_t channels);
void spade_codebook_pack(int32_t isa, const float* weight, int64_t taps, int64_t channels, void* packed);

/* The same of int8 weights. */
int64_t spade_codebook_int8_packed_bytes(int64_t taps, int64_t channels);
void spade_codebook_int8_pack(const int8_t* weight, int64_t taps, int64_t channels, void* packed);

/* Scratch that each thread needs, aligned to 64 bytes. */
int64_t spade_codebook_scratch_bytes(int32_t isa, const spade_codebook* args);

/* out = act(a[index] * ((x - mean) * rstd) + b[index]), x read at (row >> shift, column >> shift). */
typedef struct spade_modulate {
    const void* x;              /* plain map T [n][height >> shift][blocks][width >> shift][32] */
    const void* const* entries; /* [n], of each image T [blocks][entry_rows[n]][2][32]; null with index: a = 1, b = 0 */
    const int64_t* entry_rows;  /* [n] */
    const int32_t* index;       /* [n][height][width], rows of the image's entries, or null */
    const float* mean;          /* [n][blocks * 32], or null with rstd: no normalisation */
    const float* rstd;
    void* out; /* padded map I [n][height + 2][blocks][width + 2][32], its border written too */
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t blocks;
    int64_t shift; /* 0 or 1: the x2 upsampling */
    int64_t leaky; /* 1: leaky ReLU of slope 0.2; 0: none */
} spade_modulate;

/* Mean and 1 / sqrt(variance + epsilon) of every channel of every image. */
typedef struct spade_norm {
    const void* x; /* plain map */
    float* mean;   /* [n][blocks * 32] */
    float* rstd;   /* [n][blocks * 32] */
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t blocks;
    double epsilon;
} spade_norm;

/* The first 3 channels of a plain map of one block -> tanh -> image. */
typedef struct spade_image {
    const void* x;   /* plain map, blocks 1 */
    float* values;   /* [n][3][height][width] in -1 .. 1, or null */
    uint8_t* pixels; /* [n][height][width][3] = trunc((value + 1) * 127.5), or null */
    int64_t n;
    int64_t height;
    int64_t width;
} spade_image;

int64_t spade_embed_units(const spade_embed* args);
int64_t spade_codebook_units(int32_t isa, const spade_codebook* args);
int64_t spade_modulate_units(const spade_modulate* args);
int64_t spade_norm_units(const spade_norm* args);
int64_t spade_image_units(const spade_image* args);

#define SPADE_DECLARE(isa)                                                                             \
    void spade_embed_##isa(const spade_embed* args, int64_t begin, int64_t end);                       \
    void spade_codebook_##isa(const spade_codebook* args, int64_t begin, int64_t end, void* scratch);  \
    void spade_codebook_pack_##isa(const float* weight, int64_t taps, int64_t channels, void* packed); \
    void spade_modulate_##isa(const spade_modulate* args, int64_t begin, int64_t end);                 \
    void spade_norm_##isa(const spade_norm* args, int64_t begin, int64_t end);                         \
    void spade_image_##isa(const spade_image* args, int64_t begin, int64_t end);
SPADE_DECLARE(float32_avx2)
SPADE_DECLARE(float32_avx512)
SPADE_DECLARE(bf16_avx512bf16)
SPADE_DECLARE(bf16_amx)
#undef SPADE_DECLARE
void spade_codebook_int8_pack_amx(const int8_t* weight, int64_t taps, int64_t channels, void* packed);

/* ---- conv: y = conv(x) + bias (+ residual), k = 3 with a padding of one, or k = 1 ----
 *
 * Sums are float32; every output is summed in one order, so results depend neither on the range
 * of units nor on n, bit for bit. */
typedef struct spade_conv {
    const void* x;        /* padded map I [n][height + 2][in blocks][width + 2][32] */
    const void* weight;   /* packed by spade_conv_pack for the same isa */
    const float* bias;    /* [out blocks * 32], zero in unused lanes */
    const void* residual; /* plain map T [n][height >> s][out blocks][width >> s][32], or null */
    void* y;              /* plain map T [n][height][out blocks][width][32], out */
    int64_t n;
    int64_t height; /* even where s is 1, as is width */
    int64_t width;
    int64_t in_channels; /* blocks = ceil(channels / 32) */
    int64_t out_channels;
    int64_t kernel_size;    /* k: 1 or 3 */
    int64_t residual_shift; /* s: 0, or 1 for a residual of half the size, each of its pixels read four times */
} spade_conv;

/* conv(modulate(x)) without the map between: modulate.out and conv.x are not read; n, height and width are those of
 * both. Gives the same bits as the two steps.
 *
 * The shortcut is such a pair too, k = 1 and without bias, whose y is not written but added; conv.residual is null
 * then. In the isa amx it is added before y is rounded, in the others as a residual, which is rounded first. */
typedef struct spade_modulated_conv {
    spade_modulate modulate;
    spade_conv conv;
    int64_t has_shortcut; /* 0 or 1 */
    spade_modulate shortcut_modulate;
    spade_conv shortcut; /* n, height, width and out_channels as in conv */
} spade_modulated_conv;

int64_t spade_modulated_conv_units(int32_t isa, const spade_modulated_conv* args);

/* Scratch that each thread needs, aligned to 64 bytes. */
int64_t spade_modulated_conv_scratch_bytes(int32_t isa, const spade_modulated_conv* args);

/* Neighbouring units share weights, or rows of x where k = 1: a call reads them once for a run of such units, so hand
 * out runs. */
int64_t spade_conv_units(const spade_conv* args);

/* Packed weights of a conv: bytes -> pack -> use. weight is float32 [out_channels][in_channels][k][k]; packed is
 * aligned to 64 bytes. */
int64_t spade_conv_packed_bytes(int32_t isa, int64_t out_channels, int64_t in_channels, int64_t kernel_size);
void spade_conv_pack(int32_t isa, const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
                     void* packed);

#define SPADE_DECLARE(isa)                                                     \
    void spade_conv_##isa(const spade_conv* args, int64_t begin, int64_t end); \
    void spade_modulated_conv_##isa(const spade_modulated_conv* args, int64_t begin, int64_t end, void* scratch);
SPADE_DECLARE(float32_avx2)
SPADE_DECLARE(float32_avx512)
SPADE_DECLARE(bf16_avx512bf16)
SPADE_DECLARE(bf16_amx)
#undef SPADE_DECLARE

/* The products and sums that a conv is made of, from registers alone: the peak to measure it against. Does at least
 * `count` floating-point operations and returns how many. */
int64_t spade_conv_peak(int32_t isa, int64_t count);

/* ---- Programs ---- */

typedef enum spade_step_kind {
    SPADE_STEP_EMBED = 0,
    SPADE_STEP_CODEBOOK = 1,
    SPADE_STEP_MODULATE = 2,
    SPADE_STEP_NORM = 3,
    SPADE_STEP_IMAGE = 4,
    SPADE_STEP_CONV = 5,
    SPADE_STEP_MODULATED_CONV = 6,
    SPADE_STEP_PLAN = 7, /* the same in every isa */
    SPADE_STEP_KINDS = 8
} spade_step_kind;

typedef struct spade_step {
    int64_t kind;     /* spade_step_kind */
    int64_t isa;      /* spade_isa */
    int64_t overlaps; /* how many of the steps right before it may still run when it starts; 0: none */
    union {
        spade_embed embed;
        spade_codebook codebook;
        spade_modulate modulate;
        spade_norm norm;
        spade_image image;
        spade_conv conv;
        spade_modulated_conv modulated_conv;
        spade_plan plan;
    } args;
} spade_step;

/* Threads that run programs: the caller's and threads - 1 of its own. */
typedef struct spade_pool spade_pool;

/* Null if the threads cannot be started. */
spade_pool* spade_pool_create(int64_t threads);
void spade_pool_destroy(spade_pool* pool);

/* Runs the steps in order, each split over the pool's threads. Adds the seconds of each kind to seconds
 * [SPADE_STEP_KINDS] unless null. A second call on a pool waits for the first. */
spade_status spade_run(const spade_step* steps, int64_t count, spade_pool* pool, double* seconds);

#ifdef __cplusplus
}
#endif

#endif
