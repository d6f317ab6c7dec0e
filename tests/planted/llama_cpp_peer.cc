// What llama.cpp makes of a control vector: loads a model and a file of vectors by llama.cpp's own
// loader, runs tokens, and writes the logits of every one as float32.
//
//   llama_cpp_peer LIBRARIES MODEL.gguf OUT.f32 STRENGTH[,VECTOR.gguf] TOKEN...
//
// Built against llama.cpp's libraries alone, whose headers they come without. Parameters of models
// and contexts go from its defaults to its functions unseen; what is declared here of the rest has
// been the same for years.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

struct Parameters {
  char unseen[1024];  // more than they have
};
struct Batch {
  int32_t num_tokens;
  int32_t* tokens;
  float* embeddings;
  int32_t* positions;
  int32_t* num_sequences;
  int32_t** sequences;
  int8_t* wants_logits;
};
struct common_control_vector_load_info {
  float strength;
  std::string fname;
};
struct common_control_vector_data {
  int n_embd;
  std::vector<float> data;
};
common_control_vector_data common_control_vector_load(
    const std::vector<common_control_vector_load_info>& load_infos);
extern "C" {
void ggml_backend_load_all_from_path(const char* folder);
Parameters llama_model_default_params();
Parameters llama_context_default_params();
void* llama_model_load_from_file(const char* path, Parameters parameters);
void* llama_init_from_model(void* model, Parameters parameters);
int32_t llama_model_n_layer(const void* model);
int32_t llama_set_adapter_cvec(void* context, const float* data, size_t length, int32_t width,
                               int32_t first_layer, int32_t last_layer);
int32_t llama_decode(void* context, Batch batch);
const float* llama_get_logits_ith(void* context, int32_t index);
const void* llama_model_get_vocab(const void* model);
int32_t llama_vocab_n_tokens(const void* vocabulary);
}

namespace {

template <typename Value>
Value Need(Value value, const char* what) {
  if (value) return value;
  std::fprintf(stderr, "llama.cpp: %s failed\n", what);
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  Need(argc > 5, "the command line");
  ggml_backend_load_all_from_path(argv[1]);
  void* model =
      Need(llama_model_load_from_file(argv[2], llama_model_default_params()), "the model");
  void* context = Need(llama_init_from_model(model, llama_context_default_params()), "a context");
  const std::string how = argv[4];
  if (const size_t comma = how.find(','); comma != std::string::npos) {
    const auto vector = common_control_vector_load(
        {{.strength = std::stof(how.substr(0, comma)), .fname = how.substr(comma + 1)}});
    Need(vector.n_embd > 0, "the control vector");
    Need(llama_set_adapter_cvec(context, vector.data.data(), vector.data.size(), vector.n_embd, 1,
                                llama_model_n_layer(model)) == 0,
         "steering");
  }
  std::vector<int32_t> tokens;
  for (int i = 5; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));
  const auto count = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> positions(tokens.size()), ones(tokens.size(), 1);
  std::vector<int8_t> wants_logits(tokens.size(), 1);
  int32_t first_sequence = 0;
  std::vector<int32_t*> sequences(tokens.size(), &first_sequence);
  for (int32_t i = 0; i < count; ++i) positions[i] = i;
  Need(llama_decode(context, {count, tokens.data(), nullptr, positions.data(), ones.data(),
                              sequences.data(), wants_logits.data()}) == 0,
       "a step");
  std::ofstream out(argv[3], std::ios::binary);
  const int32_t width = llama_vocab_n_tokens(llama_model_get_vocab(model));
  for (int32_t i = 0; i < count; ++i) {
    const float* logits = Need(llama_get_logits_ith(context, i), "logits");
    out.write(reinterpret_cast<const char*>(logits), width * static_cast<int64_t>(sizeof(float)));
  }
  out.close();
  std::_Exit(out ? 0 : 1);
}
