package rival

import "encoding/json"

// Model is the model that is asked.
const Model = "gemini-3-pro-image"

func callPath(project string) string {
	return "/v1/projects/" + project + "/locations/global/publishers/google/models/" + Model + ":generateContent"
}

// request is the body of a call, with what the worker sends too.
func request(prompt string) string {
	text, err := json.Marshal(map[string]any{
		"contents": []any{map[string]any{"role": "user", "parts": []any{map[string]any{"text": prompt}}}},
		"generationConfig": map[string]any{
			"responseModalities": []string{"TEXT", "IMAGE"}, "candidateCount": 1,
			"imageConfig": map[string]any{"aspectRatio": "1:1", "imageSize": "1K"},
		},
		"labels": map[string]string{"campaign": "default"},
	})
	if err != nil {
		panic(err) // maps of strings can't fail
	}
	return string(text)
}
