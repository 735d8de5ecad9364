package blob

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// List implements Store. It holds one page of names, 1,000 at most.
func (s *S3) List(ctx context.Context, day string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := checkDay(day); err != nil {
			yield(Info{}, err)
			return
		}
		pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: s.bucket(), Prefix: aws.String(s.under(day + "/"))})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(Info{}, s.failure("list objects", day, err))
				return
			}
			for _, found := range page.Contents {
				name, ours := s.name(aws.ToString(found.Key))
				if !ours {
					continue
				}
				if !yield(Info{Name: name, Size: aws.ToInt64(found.Size), Modified: aws.ToTime(found.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

// Days implements Store.
func (s *S3) Days(ctx context.Context) ([]string, error) {
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{
		Bucket: s.bucket(), Prefix: aws.String(s.under("")), Delimiter: aws.String("/"),
	})
	var days []string
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, s.failure("list the days", "", err)
		}
		for _, found := range page.CommonPrefixes {
			day := strings.TrimSuffix(strings.TrimPrefix(aws.ToString(found.Prefix), s.under("")), "/")
			if checkDay(day) == nil {
				days = append(days, day)
			}
		}
	}
	slices.Sort(days)
	return days, nil
}
