/* The tile registers of AMX: eight of 16 rows x 64 bytes. Compiled with EMULATED_TILES they are memory,
   so that the sanitizers see what is read and written, and any machine tests what is done with them; with
   NO_TILES there are none. */

enum { TILE = 16, TILE_BYTES = 64, TILES = 8 };

/* Whether convolutions are multiplied on them. */
static int amx;

#if defined(EMULATED_TILES)
enum { LEAST_GROUPS = TILE, LEAST_PIXELS = 1 };
static _Thread_local uint8_t tiles[TILES][TILE][TILE_BYTES];

static void zero_rows(int tile) { memset(tiles[tile], 0, sizeof tiles[tile]); }

static void load_rows(int tile, const void *from, int64_t apart) {
    for (int row = 0; row < TILE; row++)
        memcpy(tiles[tile][row], (const uint8_t *)from + row * apart, TILE_BYTES);
}

static void store_rows(int tile, void *to, int64_t apart) {
    for (int row = 0; row < TILE; row++) memcpy((uint8_t *)to + row * apart, tiles[tile][row], TILE_BYTES);
}

static void dot_rows(int sums, int codes, int weights) {
    for (int row = 0; row < TILE; row++)
        for (int column = 0; column < TILE; column++) {
            uint32_t sum;
            memcpy(&sum, &tiles[sums][row][4 * column], sizeof sum);
            for (int k = 0; k < TILE_BYTES; k++)
                sum += (uint32_t)(tiles[codes][row][k] * (int8_t)tiles[weights][k / 4][4 * column + k % 4]);
            memcpy(&tiles[sums][row][4 * column], &sum, sizeof sum);
        }
}

#define TILE_LOAD(tile, from, apart) load_rows(tile, from, apart)
#define TILE_ZERO(tile) zero_rows(tile)
#define TILE_STORE(tile, to, apart) store_rows(tile, to, apart)
#define TILE_DOT(sums, codes, weights) dot_rows(sums, codes, weights)
static int may_use_tiles(void) { return 1; }
static void configure_tiles(void) {}
static void release_tiles(void) {}

#elif !defined(NO_TILES) && defined(__AVX512VNNI__) && defined(__linux__) && \
    (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What pays: windows that fill a row, and pixels that fill a tile. */
enum { LEAST_GROUPS = TILE, LEAST_PIXELS = TILE };

/* By assembly: the intrinsics do not say that they read and write memory. */
#define TILE_LOAD(tile, from, apart)                                                                   \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile :: "r"(from), "r"((int64_t)(apart)) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %tmm" #tile)
#define TILE_STORE(tile, to, apart)                                                                    \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" :: "r"(to), "r"((int64_t)(apart)) : "memory")
#define TILE_DOT(sums, codes, weights)                                                                 \
    __asm__ volatile("tdpbusd %%tmm" #weights ", %%tmm" #codes ", %%tmm" #sums ::: "memory")

/* Whether the processor has them and Linux lets this process use them, which it is asked for. */
static int may_use_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_INT8)) return 0;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

static void configure_tiles(void) {
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } all = {1};
    for (int tile = 0; tile < TILES; tile++) all.bytes[tile] = TILE_BYTES, all.rows[tile] = TILE;
    __asm__ volatile("ldtilecfg %0" :: "m"(all));
}

static void release_tiles(void) { __asm__ volatile("tilerelease"); }

#else
#define WITHOUT_TILES
enum { LEAST_GROUPS = 0, LEAST_PIXELS = 0 };
#define TILE_ZERO(tile) ((void)0)
#define TILE_LOAD(tile, from, apart) ((void)(from), (void)(apart))
#define TILE_STORE(tile, to, apart) ((void)(to), (void)(apart))
#define TILE_DOT(sums, codes, weights) ((void)0)
static int may_use_tiles(void) { return 0; }
static void configure_tiles(void) {}
static void release_tiles(void) {}
#endif
