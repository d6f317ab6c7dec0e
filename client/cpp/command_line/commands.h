// The commands, one function each: build a request from what was typed, call the client, print.
// They return an exit code.
#ifndef VALUESCOPE_COMMAND_LINE_COMMANDS_H_
#define VALUESCOPE_COMMAND_LINE_COMMANDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "valuescope/client.h"

namespace valuescope::command_line {

// What every command takes.
struct Globals {
  std::string server = "127.0.0.1:50051";
  std::string token;
  std::string token_file;
  TlsFiles tls;
  double timeout_seconds = 0;  // 0: the client's default
  bool json = false;

  Client Connect() const;
};

// A bearer token to be made, and whose it will be.
struct TokenFlags {
  std::string tenant;
  std::string role;
  std::string name;
};

// A job in place of a call.
struct JobFlags {
  bool job = false;
  bool validate_only = false;
  bool watch = false;
  int priority = 0;
};

// A prompt as people give it: words on the command line or "-" for standard input.
struct PromptFlags {
  std::string model;
  std::vector<std::string> words;
  std::optional<std::string> system;  // present and empty is an explicitly empty system message
  bool raw = false;                   // plain text, no chat template
  std::vector<std::string> vectors;   // NAME:coefficient@layers
  std::vector<std::string> edits;     // OPERATION:WHAT:number@layers/site, after the vectors
  bool preserve_norm = false;         // of every vector and edit
  std::string scope = "from_last_prompt";
};

struct GenerateFlags {
  PromptFlags prompt;
  int max_tokens = 256;
  float temperature = 1.0f;
  float top_p = 1.0f;
  int top_k = 0;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  std::optional<uint64_t> seed;
  int n = 1;
  std::optional<int> logprobs;  // likeliest tokens at each position
  std::vector<std::string> stop;
  std::vector<int> stop_token_ids;
  bool ignore_eos = false;
};

struct CaptureFlags {
  PromptFlags prompt;
  std::string response;
  std::string site = "residual_post";
  std::string layers = "all";
  std::string tokens = "all";
  std::string reduction = "none";
  std::string out;  // float32 file
};

// Who labels responses.
struct JudgeFlags {
  std::vector<std::string> words;  // that a response expresses the value by
  std::string rubric;              // or a question that a model answers of it
  std::string judge_model;         // the model; empty: the command's own
  std::optional<double> threshold;
};

struct ExtractFlags {
  std::string model;
  std::string data_set;  // file of JSON Lines, or artifacts/ID
  std::string layers = "all";
  std::string method;   // empty: the server's default
  std::string pooling;  // likewise
  std::optional<double> inverse_regularization;
  std::string display_name;
  std::vector<std::string> values;  // VALUE or VALUE@CONDITION,CONDITION, a vector each
  // Responses that the server generates, in place of a data set.
  std::string queries;                       // text file, a query a line, or artifacts/ID
  std::vector<std::string> system_messages;  // of which each query gets one; none: an empty one
  std::vector<std::string> expressing;       // the same, of answers that express the value
  std::vector<std::string> not_expressing;   // and of answers that do not
  JudgeFlags judge;
  std::optional<int> samples;  // of a query
  std::optional<int> max_tokens;
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  JobFlags job;
};

struct ImportFlags {
  std::string model;
  std::string path;  // "-" is standard input
  std::string format = "safetensors";
  std::string convention;  // empty: by the file
  std::string site = "residual_post";
  std::string display_name;
};

struct ExportFlags {
  std::vector<std::string> names;
  std::string path = "-";
  std::string format = "safetensors";
  std::string layers = "all";
};

struct CompareFlags {
  std::vector<std::string> names;
  std::string layers = "all";
  int top_tokens = 0;
};

struct ValuesFlags {
  std::vector<std::string> pairs;  // VALUE:INTRINSIC:PROMPTED
  std::string layers = "all";
  std::string angles = "ten";  // "none" leaves the circumplex out
  std::optional<int> null_samples;
  std::optional<uint64_t> seed;
  bool unit_deltas = false;
};

struct ClassifyFlags {
  std::string model;
  std::string intrinsic;
  std::string prompted;
  std::string layers = "all";
  double top_percent = 1;
};

struct CompareSetsFlags {
  std::vector<std::string> sets;  // neuronSets/ID[=class]
  int top_per_layer = 0;          // of every set; 0: its members
  bool by_layer = false;
};

struct SelectivityFlags {
  std::vector<std::string> names;  // neuronSets/ID, one a value
  std::optional<double> activity_percentile;
  std::optional<double> top_percent;
  std::optional<int> top_k;
  std::string display_name;
};

struct ContextsFlags {
  std::string model;
  std::string neurons;   // LAYER/INDEX+LAYER/INDEX
  std::string data_set;  // file of JSON Lines, or artifacts/ID
  std::string tokens = "response";
  std::optional<int> top_k;
  std::optional<int> window;
};

// What is attributed or measured: without anything the response's log-probability.
struct TargetFlags {
  std::string vector;                 // the projection on it
  std::optional<int> layer;           // behind which the projection is read
  std::vector<std::string> positive;  // a difference of logits: ids, or texts of one token
  std::vector<std::string> negative;
};

// Empty names, and numbers that are not there, stand for the server's defaults.
struct AttributeFlags {
  std::string model;
  std::string data_set;
  std::string method = "direct_contribution";
  TargetFlags target;  // its vector is also that of direct_contribution
  std::optional<int> source_layer;
  std::string baseline;
  std::string definition;
  std::optional<int> steps;
  std::optional<double> tolerance;
  std::optional<int> max_steps;
  std::string reference;
  std::string candidates;  // LAYER/INDEX+LAYER/INDEX
  std::string tokens;
  bool recompute_norm_scale = false;
  std::string layers = "all";
  std::optional<int> top_k;
  std::string display_name;
  JobFlags job;
};

// The same.
struct TestFlags {
  std::string model;
  std::string data_set;
  std::string neurons;  // as ParseNeuronsOrSet takes them, or several with labels
  bool signed_scores = false;
  std::string test = "remove";
  std::optional<double> factor;
  std::string mode;
  std::string reference;
  TargetFlags target;
  std::vector<int> sizes;
  std::string layers = "all";
  std::string tokens;
  std::optional<int> random_sets;
  uint64_t seed = 0;
  std::string display_name;
  JobFlags job;
};

// What every evaluation of a model takes.
struct EvaluationFlags {
  std::string model;
  std::string data_set;                 // file of JSON Lines, or artifacts/ID
  std::vector<std::string> conditions;  // NAME or NAME=EDIT; a name again adds an edit to it
  std::optional<std::string> system;    // of all conditions
};

struct QuestionnaireFlags {
  EvaluationFlags evaluation;
  std::string template_text;
  std::vector<std::string> options;  // texts, from the least to the most like
  std::string language;
  std::string order;  // empty: the server's default
  std::string key;    // empty: none
  std::string answer_prefix;
  int max_answer_tokens = 0;
};

struct ChoicesFlags {
  EvaluationFlags evaluation;
  std::string template_text;  // empty: the server's default
  std::string reading;        // likewise
  std::string answer_prefix;
  std::optional<int> calibration_bins;
};

struct TaggedFlags {
  EvaluationFlags evaluation;
  std::vector<std::string> templates;  // none: the server's default
  double min_weight = 0;
};

struct MeasureFlags {
  std::string model;
  std::string data_set;
  std::vector<int> ngrams;                // empty: the server's default
  std::vector<std::string> phrases;       // that mark a refusal
  std::vector<std::string> instructions;  // NAME:VALUE, as the fields of Instruction
  std::optional<int64_t> vocabulary;
  std::optional<int> self_bleu_texts;
  bool perplexity = false;
  uint64_t seed = 0;
};

struct JudgeResponsesFlags {
  std::string model;  // whose token ids the data set has; may be empty
  std::string data_set;
  JudgeFlags judge;
  std::string grade;  // a question that a number from 0 to 10 answers, in place of labels
  bool each = false;  // a row a response
};

struct PairsFlags {
  std::string model;  // the judge
  std::string data_set;
  std::string rubric;
  bool each = false;  // a row a pair
};

// A job of any kind.
struct SubmitFlags {
  std::string path;  // of the JSON mapping of its JobSpec; "-" is standard input
  std::string display_name;
  JobFlags job;
};

// What a job left, into a folder.
struct DownloadFlags {
  std::string name;
  std::string folder;
};

// Which jobs are listed; what is empty lets all through.
struct JobListFlags {
  std::vector<std::string> states;
  std::string kind;
  std::string model;
  std::string display_name;                   // the begin of it
  std::string created_after, created_before;  // as ParseMoment reads them
};

struct ReadFlags {
  std::string name;
  std::string path = "-";
  std::string format = "stored";  // "arrow", "arrow_stream": a table
  std::string lines;              // of a table: a LineType; empty is the default
};

int ListModels(const Globals& globals, bool all_replicas);
int ListReplicas(const Globals& globals);
int GetModel(const Globals& globals, const std::string& name);
int Generate(const Globals& globals, const GenerateFlags& flags);
int Capture(const Globals& globals, const CaptureFlags& flags);

int ListVectors(const Globals& globals, bool shared);
int ExtractVectors(const Globals& globals, const ExtractFlags& flags);
int DecomposeVectors(const Globals& globals, const std::string& intrinsic,
                     const std::string& prompted);
int ImportVectors(const Globals& globals, const ImportFlags& flags);
int ExportVectors(const Globals& globals, const ExportFlags& flags);
int CompareVectors(const Globals& globals, const CompareFlags& flags);
int CompareValues(const Globals& globals, const ValuesFlags& flags);

int ClassifyNeurons(const Globals& globals, const ClassifyFlags& flags);
int AttributeNeurons(const Globals& globals, const AttributeFlags& flags);
int ScoreSelectivity(const Globals& globals, const SelectivityFlags& flags);
int CompareNeuronSets(const Globals& globals, const CompareSetsFlags& flags);
int TopContexts(const Globals& globals, const ContextsFlags& flags);
int TestNeurons(const Globals& globals, const TestFlags& flags);

int AskQuestionnaire(const Globals& globals, const QuestionnaireFlags& flags);
int AnswerChoices(const Globals& globals, const ChoicesFlags& flags);
int ScoreTaggedResponses(const Globals& globals, const TaggedFlags& flags);

int MeasureTexts(const Globals& globals, const MeasureFlags& flags);
int JudgeResponses(const Globals& globals, const JudgeResponsesFlags& flags);
int CompareResponses(const Globals& globals, const PairsFlags& flags);

int SubmitJob(const Globals& globals, const SubmitFlags& flags);
int GetJob(const Globals& globals, const std::string& name);
int ListJobs(const Globals& globals, const JobListFlags& flags);
int WatchJob(const Globals& globals, const std::string& name);
int DownloadJob(const Globals& globals, const DownloadFlags& flags);
int CancelJob(const Globals& globals, const std::string& name);
int RetryJob(const Globals& globals, const std::string& name);
int DeleteJob(const Globals& globals, const std::string& name);
int CreateToken(const Globals& globals, const TokenFlags& flags);

int ListArtifacts(const Globals& globals, bool shared);
int WriteArtifact(const Globals& globals, const std::string& path, const std::string& media_type);
int ReadArtifact(const Globals& globals, const ReadFlags& flags);

// Makes Ctrl-C cancel the calls in flight, so that the server stops working for them; a second one
// ends the process. To be called before any other thread starts.
void HandleSignals();

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_COMMANDS_H_
