/* The public C interface of the CPU kernels: plain C, memory owned by the caller, no Python and no PyTorch.
 *
 * Sizes count elements unless a name says bytes. Functions that can fail return a spade_status. Except for a pool
 * (spade_pool_create), the kernels allocate nothing, keep nothing between calls and touch no global state, so any
 * number of threads may call them, each with its own scratch.
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

/* Returns one English sentence for a status: static storage, never null. */
const char* spade_status_message(spade_status status);

/* ---- symbols: label and instance maps -> one number a pixel ---- */

/* The shape of the maps [n, height, width], and how to read their labels. */
typedef struct spade_symbols_shape {
    int64_t n;
    int64_t height;
    int64_t width;
    int32_t classes;      /* ids are 0 .. classes - 1; at most 256 classes */
    int32_t dont_care_id; /* the id that label 255 becomes; -1: label 255 stays 255 */
} spade_symbols_shape;

/* Writes the symbol of each pixel: its id or, with instances, 2 * id + edge. `edge` is 1 where the instance id differs
 * from the left, right, upper or lower neighbour's.
 *   labels    uint8 [n, height, width]
 *   instances int32 of the same shape, or null
 *   symbols   uint16 of the same shape, out
 *   all_known out: 1 if every id is below classes, else 0 */
spade_status spade_symbols(const spade_symbols_shape* shape, const uint8_t* labels, const int32_t* instances,
                           uint16_t* symbols, int32_t* all_known);

/* ---- plan: a symbol map -> its distinct label patches, and each pixel's patch ---- */

#define SPADE_PLAN_MAX_SYMBOLS 65535
#define SPADE_PLAN_MAX_PIXELS (INT64_C(1) << 28)

/* One level: the symbol map [map_height, map_width] is resized to [height, width] by NEAREST, source row
 * floor(y * map_height / height). */
typedef struct spade_plan_shape {
    int64_t map_height;
    int64_t map_width;
    int64_t height;
    int64_t width;
    int32_t n_symbols;   /* symbols are 0 .. n_symbols - 1; the value n_symbols means "outside the image" */
    int32_t kernel_size; /* k: 1, 3 or 5 */
} spade_plan_shape;

/* A volume [depth, height, width] whose distinct k x k x k windows are numbered. */
typedef struct spade_volume_shape {
    int64_t depth;
    int64_t height;
    int64_t width;
    int32_t outside;     /* the value of taps outside the volume */
    int32_t kernel_size; /* k: 1, 3 or 5 */
} spade_volume_shape;

/* The number of rows of each of a level's two tables. */
typedef struct spade_plan_counts {
    int64_t patches3;
    int64_t patches5;
} spade_plan_counts;

/* The plan of one level of one map. It runs twice: the first run, with patches3 and patches5 null, writes index and
 * counts; the caller allocates the two tables by counts; the second run fills the tables. */
typedef struct spade_plan {
    spade_plan_shape shape;
    const uint16_t* symbols;   /* [map_height][map_width], rows row_stride apart */
    int64_t row_stride;        /* elements */
    void* scratch;             /* spade_plan_scratch_bytes, aligned to 8, this plan's alone until the second run ends */
    int32_t* index;            /* [height][width], out: rows of patches5 */
    spade_plan_counts* counts; /* out */
    int32_t* patches3;         /* [counts.patches3][k*k], out: symbols; "outside" is n_symbols */
    int32_t* patches5;         /* [counts.patches5][k*k], out: rows of patches3; "outside" is counts.patches3 */
} spade_plan;

/* Writes the bytes of scratch that a plan of this level needs. */
spade_status spade_plan_scratch_bytes(const spade_plan_shape* shape, int64_t* bytes);

/* Writes the row-major position of the first symbol that is n_symbols or larger, or -1 if there is none. */
spade_status spade_plan_first_bad_symbol(const uint16_t* symbols, int64_t count, int32_t n_symbols, int64_t* position);

/* Checks a plan and prepares its scratch, which holds scratch_bytes, for the first run. */
spade_status spade_plan_start(const spade_plan* plan, int64_t scratch_bytes);

/* A plan has two work items: patches3 and patches5. The second item reads the rows that the first item has made, so it
 * runs after the first item or at the same time on another thread. */
int64_t spade_plan_work_items(const spade_plan* plan);
void spade_plan_run(const spade_plan* plan, int64_t begin, int64_t end);

/* Moves row numbers to a longer table: out[i] = rows[i] == outside ? new_outside : rows[i] + offset, for i < count.
 * out may be rows. */
spade_status spade_plan_rebase(const int32_t* rows, int64_t count, int32_t outside, int32_t offset, int32_t new_outside,
                               int32_t* out);

/* ---- Steps of the generator ----
 *
 * A step is one kernel and its arguments. Its work is split into work items 0 .. spade_<op>_work_items(args) - 1, and a
 * call computes the items begin .. end - 1 on the calling thread. Every output element is computed by one item, in an
 * order that depends neither on the range nor on the batch: results are the same bit for bit however work is split.
 * The kernels check nothing (kernels/ops/ checks).
 *
 * An ISA (instruction set) fixes two storage types: T of plain maps and entries, and I, which products read, of padded
 * maps and hidden rows. Sums are float32.
 *   avx2, avx512  T and I are float32
 *   avx512bf16    T and I are bf16
 *   amx           T is float16, I is bf16; modulate computes in float16
 * bf16 is stored as uint16. All roundings are to nearest even. Channels lie in blocks of 32, CB = ceil(C / 32); unused
 * channels of a block are zero in every map.
 *   padded map  I [N][H + 2][CB][W + 2][32], the border is zero
 *   plain map   T [N][H][CB][W][32]
 *   entries     T [CB][U5][2][32]: 32 values of a, then 32 values of b. Several maps may share a table; each map's
 *               entries are then the same run of rows in every block. */

typedef enum spade_isa {
    SPADE_ISA_AVX2 = 0,
    SPADE_ISA_AVX512 = 1,
    SPADE_ISA_AVX512BF16 = 2,
    SPADE_ISA_AMX = 3,
    SPADE_ISAS = 4
} spade_isa;

/* Returns 1 if this processor runs the ISA, else 0. */
int32_t spade_isa_supported(int32_t isa);

/* Channels of actv, the hidden map between SPADE's two convs. */
#define SPADE_HIDDEN 128

/* ---- Rectangles ----
 *
 * modulate, conv, modulated_conv and image compute the pixels in rows top .. bottom - 1 and columns left .. right - 1
 * of each image, and leave the other pixels as they are; an empty rectangle has no work items. Every pixel has the same
 * bits in any rectangle. A rectangle that leaves out rows needs n = 1. */

/* ---- embed: a conv on a one-hot map as a sum of table rows ----
 *
 * out[row] = bias + sum over taps of table[tap][patches[row][tap]], then ReLU if relu is 1. */
typedef struct spade_embed {
    const float* table;     /* [taps][symbols + 1][depth]; row `symbols` of each tap is zero */
    const float* bias;      /* [depth] */
    const int32_t* patches; /* [rows][taps], 0 .. symbols */
    void* out;              /* T [rows / width][depth / 32][width][32]; with zero_row, I [rows + 1][depth] */
    int64_t rows;
    int64_t taps;
    int64_t symbols;
    int64_t depth;    /* a multiple of 32 */
    int64_t width;    /* rows that make one line of a plain map; divides rows; 1 with zero_row */
    int64_t relu;     /* 0 or 1 */
    int64_t zero_row; /* 1: writes one more row, of zeros, at position `rows` */
    int64_t as_bytes; /* 1: out is uint8 [rows + 1][depth], rounded and limited to 0 .. 255; amx with zero_row only */
} spade_embed;

int64_t spade_embed_work_items(const spade_embed* args);

/* ---- codebook: (a, b) of every distinct patch ----
 *
 * entries[u] = bias + sum over taps of actv[patches[u][tap]] x weight[tap].
 *
 * Both forms sum the products of one tap first and then the taps, so they give the same bits. The ISA amx sums all
 * products in one order of its own and has the gathered form only.
 *
 * int8 (amx only, scale not null): actv holds bytes and weight int8; entries[u] = bias + scale * the sum, which is
 * exact in int32. A patch whose symbols are all the same takes its entry from `interior`, which has no int8 rounding:
 * most pixels of a map lie in such patches. */
typedef enum spade_codebook_form {
    SPADE_CODEBOOK_GATHERED = 0, /* gathers the rows of each patch and multiplies them: rows * taps row products */
    SPADE_CODEBOOK_PER_TAP = 1   /* multiplies each row of actv once per tap and adds gathered products */
} spade_codebook_form;

typedef struct spade_codebook {
    const void* actv;       /* I [actv_rows][SPADE_HIDDEN], or uint8 for int8 products */
    const int32_t* patches; /* [rows][taps], 0 .. actv_rows - 1; the last row of actv is "outside the image" */
    const void* weight;     /* packed by spade_codebook_pack for the same ISA, or by spade_codebook_int8_pack */
    const float* bias;      /* [blocks][2][32] */
    void* entries;          /* T [blocks][entry_rows][2][32], out */
    int64_t rows;
    int64_t entry_rows; /* rows of the table that entries points into; at least rows */
    int64_t taps;
    int64_t actv_rows;
    int64_t blocks;
    int64_t form;           /* spade_codebook_form */
    const float* scale;     /* [blocks][2][32], or null: no int8 products */
    const int32_t* windows; /* int8: [actv_rows - 1][taps], the symbols that each row of actv was made of */
    const void* interior;   /* int8: T [blocks][symbols][2][32] */
    int64_t symbols;        /* int8: rows of interior */
} spade_codebook;

int64_t spade_codebook_work_items(int32_t isa, const spade_codebook* args);

/* Bytes of scratch that each thread needs, aligned to 64. */
int64_t spade_codebook_scratch_bytes(int32_t isa, const spade_codebook* args);

/* Packs weights: ask for the bytes, pack, then use the packed weights in steps. weight is float32
 * [taps * SPADE_HIDDEN][2 * channels], all a before all b; packed is aligned to 64 bytes. */
int64_t spade_codebook_packed_bytes(int32_t isa, int64_t taps, int64_t channels);
void spade_codebook_pack(int32_t isa, const float* weight, int64_t taps, int64_t channels, void* packed);

/* Packs int8 weights of the same shape for amx. */
int64_t spade_codebook_int8_packed_bytes(int64_t taps, int64_t channels);
void spade_codebook_int8_pack(const int8_t* weight, int64_t taps, int64_t channels, void* packed);

/* ---- modulate: out = act(a[index] * ((x - mean) * rstd) + b[index]) ----
 *
 * x is read at (row >> shift, column >> shift). */
typedef struct spade_modulate {
    const void* x;              /* plain map T [n][height >> shift][blocks][width >> shift][32] */
    const void* const* entries; /* [n] pointers, one an image, to T [blocks][entry_rows[n]][2][32]; null with index:
                                   a = 1, b = 0 */
    const int64_t* entry_rows;  /* [n] */
    const int32_t* index;       /* [n][height][width], rows of the image's entries; or null */
    const float* mean;          /* [n][blocks * 32]; null with rstd: no normalisation */
    const float* rstd;          /* [n][blocks * 32] */
    void* out; /* padded map I [n][height + 2][blocks][width + 2][32], out; its border is written too */
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t blocks;
    int64_t shift; /* 0; or 1: x is upsampled by 2 as it is read */
    int64_t leaky; /* 1: leaky ReLU of slope 0.2; 0: no activation */
    int64_t top;   /* the rectangle; with shift, left and right are rounded outwards to even columns. The border beside
                      the rectangle's lines is written too */
    int64_t left;
    int64_t bottom;
    int64_t right;
} spade_modulate;

int64_t spade_modulate_work_items(const spade_modulate* args);

/* ---- norm: mean and 1 / sqrt(variance + epsilon) of every channel of every image ---- */
typedef struct spade_norm {
    const void* x; /* plain map T [n][height][blocks][width][32] */
    float* mean;   /* [n][blocks * 32], out */
    float* rstd;   /* [n][blocks * 32], out */
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t blocks;
    double epsilon;
} spade_norm;

int64_t spade_norm_work_items(const spade_norm* args);

/* ---- image: tanh of the first 3 channels of a plain map of one block ---- */
typedef struct spade_image {
    const void* x;   /* plain map T [n][height][1][width][32] */
    float* values;   /* [n][3][height][width] in -1 .. 1, out; or null */
    uint8_t* pixels; /* [n][height][width][3] = trunc((value + 1) * 127.5), out; or null */
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t top; /* the rectangle */
    int64_t left;
    int64_t bottom;
    int64_t right;
} spade_image;

int64_t spade_image_work_items(const spade_image* args);

/* ---- conv: y = conv(x) + bias (+ residual), k = 3 with a padding of one, or k = 1 ---- */
typedef struct spade_conv {
    const void* x;        /* padded map I [n][height + 2][in blocks][width + 2][32] */
    const void* weight;   /* packed by spade_conv_pack for the same ISA */
    const float* bias;    /* [out blocks * 32], zero in unused channels */
    const void* residual; /* plain map T [n][height >> s][out blocks][width >> s][32], or null */
    void* y;              /* plain map T [n][height][out blocks][width][32], out */
    int64_t n;
    int64_t height; /* even if s is 1 */
    int64_t width;  /* even if s is 1 */
    int64_t in_channels;
    int64_t out_channels;
    int64_t kernel_size;    /* k: 1 or 3 */
    int64_t residual_shift; /* s: 0; or 1: the residual is upsampled by 2 as it is read */
    int64_t top;            /* the rectangle */
    int64_t left;
    int64_t bottom;
    int64_t right;
} spade_conv;

/* Neighbouring work items share weights (k = 3) or rows of x (k = 1). A call reads the shared data once, so long ranges
 * are faster than short ones. */
int64_t spade_conv_work_items(const spade_conv* args);

/* Packs weights: ask for the bytes, pack, then use the packed weights in steps. weight is float32
 * [out_channels][in_channels][k][k]; packed is aligned to 64 bytes. */
int64_t spade_conv_packed_bytes(int32_t isa, int64_t out_channels, int64_t in_channels, int64_t kernel_size);
void spade_conv_pack(int32_t isa, const float* weight, int64_t out_channels, int64_t in_channels, int64_t kernel_size,
                     void* packed);

/* Measures the peak of the ISA: does the multiply-adds of a conv from registers, at least `count` floating-point
 * operations, and returns how many it did. */
int64_t spade_conv_peak(int32_t isa, int64_t count);

/* ---- modulated_conv: conv(modulate(x)), without the map between ----
 *
 * Gives the same bits as a modulate step and a conv step. modulate.out, conv.x and the rectangle of modulate are not
 * read; n, height and width are the same in modulate and conv.
 *
 * The shortcut is a second modulated conv (k = 1, no bias) whose result is added to the first; its y is not written,
 * and conv.residual is null. amx adds the shortcut before it rounds y. The other ISAs round the shortcut to T and then
 * add it as a residual. */
typedef struct spade_modulated_conv {
    spade_modulate modulate;
    spade_conv conv;
    int64_t has_shortcut; /* 0 or 1 */
    spade_modulate shortcut_modulate;
    spade_conv shortcut; /* n, height, width, out_channels and rectangle as in conv */
} spade_modulated_conv;

int64_t spade_modulated_conv_work_items(int32_t isa, const spade_modulated_conv* args);

/* Bytes of scratch that each thread needs, aligned to 64. */
int64_t spade_modulated_conv_scratch_bytes(int32_t isa, const spade_modulated_conv* args);

/* ---- The kernels of each ISA: spade_<op>_<dtype>_<isa> ----
 *
 * scratch: the calling thread's own. Its first 8 bytes are zero at a step's first range and keep, between ranges of the
 * same step, what the kernel wrote there. */
#define SPADE_DECLARE(isa)                                                                             \
    void spade_embed_##isa(const spade_embed* args, int64_t begin, int64_t end);                       \
    void spade_codebook_##isa(const spade_codebook* args, int64_t begin, int64_t end, void* scratch);  \
    void spade_codebook_pack_##isa(const float* weight, int64_t taps, int64_t channels, void* packed); \
    void spade_modulate_##isa(const spade_modulate* args, int64_t begin, int64_t end);                 \
    void spade_norm_##isa(const spade_norm* args, int64_t begin, int64_t end);                         \
    void spade_image_##isa(const spade_image* args, int64_t begin, int64_t end);                       \
    void spade_conv_##isa(const spade_conv* args, int64_t begin, int64_t end);                         \
    void spade_modulated_conv_##isa(const spade_modulated_conv* args, int64_t begin, int64_t end, void* scratch);
SPADE_DECLARE(float32_avx2)
SPADE_DECLARE(float32_avx512)
SPADE_DECLARE(bf16_avx512bf16)
SPADE_DECLARE(bf16_amx)
#undef SPADE_DECLARE
void spade_codebook_int8_pack_amx(const int8_t* weight, int64_t taps, int64_t channels, void* packed);

/* ---- Programs: steps that a pool of threads runs ---- */

typedef enum spade_step_kind {
    SPADE_STEP_EMBED = 0,
    SPADE_STEP_CODEBOOK = 1,
    SPADE_STEP_MODULATE = 2,
    SPADE_STEP_NORM = 3,
    SPADE_STEP_IMAGE = 4,
    SPADE_STEP_CONV = 5,
    SPADE_STEP_MODULATED_CONV = 6,
    SPADE_STEP_PLAN = 7, /* one kernel for all ISAs */
    SPADE_STEP_KINDS = 8
} spade_step_kind;

typedef struct spade_step {
    int64_t kind;     /* spade_step_kind */
    int64_t isa;      /* spade_isa */
    int64_t overlaps; /* how many of the steps right before this one may still be running when this one starts */
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

/* A pool of threads that run programs: the calling thread and threads - 1 of the pool's own. */
typedef struct spade_pool spade_pool;

/* Returns null if threads is below 1 or the threads cannot be started. */
spade_pool* spade_pool_create(int64_t threads);
void spade_pool_destroy(spade_pool* pool);

/* Runs the steps in order and splits each step over the pool's threads. Adds the seconds that each kind of step took to
 * seconds [SPADE_STEP_KINDS] unless seconds is null. A second call on the same pool waits for the first. */
spade_status spade_run(const spade_step* steps, int64_t count, spade_pool* pool, double* seconds);

#ifdef __cplusplus
}
#endif

#endif
